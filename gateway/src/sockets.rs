//! `GET /ws/recommendations/{user_id}` and `GET /sse/recommendations/{user_id}`: a page gets the latest list at once and
//! each new one as it is decided.

use crate::{
    App,
    access::Caller,
    error::Problem,
    push::{Push, Seat},
    query::{self, Question},
};
use axum::{
    Extension,
    extract::{
        Path, Query, State,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code, rejection::WebSocketUpgradeRejection},
    },
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{Stream, StreamExt, stream};
use serde::Deserialize;
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

/// How often a silent socket is asked whether it still lives; twice without a sign, and it is dropped.
const PING_EVERY: Duration = Duration::from_secs(25);

/// How long a socket may take to take a message.
const SEND_WITHIN: Duration = Duration::from_secs(10);

/// How long a peer may take to answer our farewell.
const FAREWELL_WITHIN: Duration = Duration::from_millis(500);

/// How a page wants its lists.
#[derive(Default, Deserialize)]
pub(crate) struct Wish {
    #[serde(default)]
    format: Format,
    /// For event sources that can't send the header.
    last_event_id: Option<String>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// Product ids.
    #[default]
    Ids,
    /// The whole record.
    Full,
}

impl Format {
    fn of(self, push: &Push) -> String {
        match self {
            Self::Ids => push.ids.clone(),
            Self::Full => push.full.clone(),
        }
    }
}

pub(crate) async fn web_socket(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(user): Path<String>,
    Query(wish): Query<Wish>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    caller.needs_user(&user)?;
    let upgrade = upgrade.map_err(|e| Problem::new(StatusCode::BAD_REQUEST, "no_web_socket", format!("this is a WebSocket: {e}")))?;
    let place = place(&app)?;
    let (seat, first) = seat(&app, &user, &headers).await;
    // Pages only listen; what they send is read to see pings and closing, and never kept.
    let upgrade = upgrade.max_message_size(4 << 10).max_frame_size(4 << 10).write_buffer_size(0).max_write_buffer_size(1 << 20);
    Ok(upgrade.on_upgrade(move |socket| {
        let tracked = app.sockets.clone();
        tracked.track_future(async move {
            app.metrics.sockets.inc();
            talk(&app, socket, seat, first, wish.format).await;
            app.metrics.sockets.dec();
            drop(place);
        })
    }))
}

async fn talk(app: &App, mut socket: WebSocket, mut seat: Seat, first: Option<Arc<Push>>, format: Format) {
    let mut ping = tokio::time::interval_at(tokio::time::Instant::now() + PING_EVERY, PING_EVERY);
    let mut silent = 0;
    let mut next = first;
    loop {
        let message = match next.take() {
            Some(push) => {
                app.metrics.pushes.inc();
                Message::text(format.of(&push))
            }
            None => tokio::select! {
                () = app.stop.cancelled() => break farewell(&mut socket, close_code::AWAY, "the server restarts").await,
                push = seat.next() => match push {
                    Some(push) => {
                        next = Some(push);
                        continue;
                    }
                    None => break,
                },
                _ = ping.tick() => {
                    silent += 1;
                    if silent > 2 {
                        break;
                    }
                    Message::Ping(Default::default())
                }
                received = socket.recv() => match received {
                    Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                    Some(Ok(_)) => {
                        silent = 0;
                        continue;
                    }
                },
            },
        };
        match timeout(SEND_WITHIN, socket.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => break,
            Err(_) => {
                tracing::debug!("a socket takes nothing; dropped");
                break;
            }
        }
    }
}

/// Says goodbye, and waits a moment for the answer: closing with unread bytes would tear the farewell out of the wire.
async fn farewell(socket: &mut WebSocket, code: u16, reason: &'static str) {
    let goodbye = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
    let _ = timeout(FAREWELL_WITHIN, async {
        socket.send(goodbye).await?;
        while let Some(Ok(_)) = socket.recv().await {}
        Ok::<_, axum::Error>(())
    })
    .await;
}

pub(crate) async fn event_stream(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(user): Path<String>,
    Query(wish): Query<Wish>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.needs_user(&user)?;
    let place = place(&app)?;
    let stated = headers.get("last-event-id").and_then(|v| v.to_str().ok()).or(wish.last_event_id.as_deref());
    let seen = stated.and_then(|id| {
        let (partition, offset) = id.split_once(':')?;
        Some((partition.parse().ok()?, offset.parse().ok()?))
    });
    let (seat, first) = seat(&app, &user, &headers).await;
    let first = first.filter(|push| !push.is_seen(seen));
    let listener = Listener::new(app.clone(), place);
    let pushes = stream::unfold((seat, first, listener), |(mut seat, first, listener)| async {
        let push = match first {
            Some(push) => push,
            None => seat.next().await?,
        };
        listener.app.metrics.pushes.inc();
        Some((push, (seat, None, listener)))
    });
    let events = pushes.map(move |push| {
        let event = Event::default().data(wish.format.of(&push));
        Ok(match push.place {
            Some((partition, offset)) => event.id(format!("{partition}:{offset}")),
            None => event,
        })
    });
    Ok(sse(&app, events))
}

/// One open event stream, counted while it lives.
pub(crate) struct Listener {
    app: Arc<App>,
    _place: OwnedSemaphorePermit,
}

impl Listener {
    pub fn new(app: Arc<App>, place: OwnedSemaphorePermit) -> Self {
        app.metrics.sockets.inc();
        Self { app, _place: place }
    }

    pub fn app(&self) -> &App {
        &self.app
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.app.metrics.sockets.dec();
    }
}

/// Server-sent events until the gateway stops.
pub(crate) fn sse(app: &Arc<App>, events: impl Stream<Item = Result<Event, Infallible>> + Send + 'static) -> Response {
    let mut response = Sse::new(events.take_until(app.stop.clone().cancelled_owned()))
        .keep_alive(KeepAlive::new().interval(Duration::from_secs(15)))
        .into_response();
    // Some proxies keep what they pass on until they have more of it.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Room for one more socket.
pub(crate) fn place(app: &App) -> Result<OwnedSemaphorePermit, Problem> {
    let room = app.room.clone().try_acquire_owned();
    room.map_err(|_| Problem::unavailable("no room for more sockets; try again later").retry_after(10))
}

/// A place at the hub and what the page shows first: what was pushed last, else what the state says.
async fn seat(app: &Arc<App>, user: &str, headers: &HeaderMap) -> (Seat, Option<Arc<Push>>) {
    let (seat, latest) = app.hub.join(user);
    if let Some(push) = latest {
        return (seat, Some(Arc::new(push)));
    }
    let question = Question { group: "customers", key: user, path: "recommendations" };
    let first = match query::ask(app, &question, headers).await {
        Ok(value) => value.and_then(|value| Push::of(&value, None)),
        Err(problem) => {
            tracing::debug!(reason = problem.message, "no list to begin with");
            None
        }
    };
    (seat, first.map(Arc::new))
}
