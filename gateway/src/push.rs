//! From committed recommendations to open sockets: one follower of the log, any number of sockets, each of which sees
//! the latest and never holds up another.

use crate::{
    App,
    query::{self, Question},
};
use axum::http::HeaderMap;
use futures_util::{
    FutureExt, StreamExt,
    future::{Fuse, FusedFuture},
    stream,
};
use parking_lot::Mutex;
use serde_json::Value;
use std::{collections::HashMap, sync::Arc};
use tillflow_engine::port::Committed;
use tokio::sync::{
    broadcast::{Receiver, error::RecvError},
    watch,
};

/// Of how many users at least the latest push is remembered, for pages that connect later.
const REMEMBERED: usize = 5_000;

/// How many users are asked about at a time when pushes were missed.
const ASKED_AT_A_TIME: usize = 8;

/// One push, ready to be sent.
#[derive(Debug, PartialEq)]
pub(crate) struct Push {
    /// Where it stands in the log: partition and offset. A push made from a query has none.
    pub place: Option<(u32, i64)>,
    /// A JSON list of product ids, best first.
    pub ids: String,
    /// The whole record.
    pub full: String,
}

impl Push {
    /// A push of what the record, or the answer to the query, says; none if it names no products at all.
    pub fn of(value: &Value, place: Option<(u32, i64)>) -> Option<Self> {
        let items = value.get("items")?.as_array()?;
        let ids: Vec<&Value> = items.iter().filter_map(|item| item.get("product_id")).collect();
        if ids.is_empty() {
            return None;
        }
        Some(Self { place, ids: serde_json::to_string(&ids).ok()?, full: value.to_string() })
    }

    fn of_record(record: &Committed) -> Option<Self> {
        let value = serde_json::from_slice(record.value.as_deref()?).ok()?;
        Self::of(&value, Some((record.partition, record.offset)))
    }

    /// Whether one who has seen `place` has seen this.
    pub fn is_seen(&self, place: Option<(u32, i64)>) -> bool {
        matches!((self.place, place), (Some((p, o)), Some((partition, offset))) if p == partition && o <= offset)
    }
}

/// Who is connected, and what was pushed last.
#[derive(Default)]
pub(crate) struct Hub {
    users: Mutex<HashMap<String, watch::Sender<Option<Arc<Push>>>>>,
    latest: Mutex<Latest>,
}

/// The last push a user, in two generations: when the younger is full, the older is forgotten.
#[derive(Default)]
struct Latest {
    young: HashMap<String, Arc<Committed>>,
    old: HashMap<String, Arc<Committed>>,
}

impl Latest {
    fn put(&mut self, record: &Arc<Committed>) {
        if self.young.len() >= REMEMBERED {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(record.key.clone(), record.clone());
    }

    fn get(&self, user: &str) -> Option<Arc<Committed>> {
        self.young.get(user).or_else(|| self.old.get(user)).cloned()
    }
}

/// One socket's place at the hub.
pub(crate) struct Seat {
    hub: Arc<Hub>,
    user: String,
    pushes: watch::Receiver<Option<Arc<Push>>>,
}

impl Seat {
    /// The next push; those that came while the last was being sent are skipped but for the newest.
    pub async fn next(&mut self) -> Option<Arc<Push>> {
        self.pushes.changed().await.ok()?;
        self.pushes.borrow_and_update().clone()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut users = self.hub.users.lock();
        // This seat's own receiver still counts.
        if users.get(&self.user).is_some_and(|sender| sender.receiver_count() <= 1) {
            users.remove(&self.user);
        }
    }
}

impl Hub {
    /// A place for a socket of that user, and the last push to them that is remembered.
    pub fn join(self: &Arc<Self>, user: &str) -> (Seat, Option<Push>) {
        let pushes = {
            let mut users = self.users.lock();
            users.entry(user.to_owned()).or_insert_with(|| watch::channel(None).0).subscribe()
        };
        let mut seat = Seat { hub: self.clone(), user: user.to_owned(), pushes };
        // A second socket of a user must not take the first one's last push for a new one.
        seat.pushes.mark_unchanged();
        let latest = self.latest.lock().get(user);
        (seat, latest.and_then(|record| Push::of_record(&record)))
    }

    fn push(&self, user: &str, make: impl FnOnce() -> Option<Push>) {
        let users = self.users.lock();
        if let Some(sender) = users.get(user)
            && let Some(push) = make()
        {
            sender.send_replace(Some(Arc::new(push)));
        }
    }

    /// All who are connected, and what each was pushed last.
    fn connected(&self) -> Vec<(String, Option<Arc<Push>>)> {
        self.users.lock().iter().map(|(user, sender)| (user.clone(), sender.borrow().clone())).collect()
    }

    /// Pushes, unless something was pushed since `before`: that is newer.
    fn push_after(&self, user: &str, before: Option<&Arc<Push>>, push: Push) {
        if let Some(sender) = self.users.lock().get(user) {
            sender.send_if_modified(|now| {
                let unchanged = now.as_ref().map(Arc::as_ptr) == before.map(Arc::as_ptr);
                if unchanged {
                    *now = Some(Arc::new(push));
                }
                unchanged
            });
        }
    }
}

/// Follows the log until the gateway stops.
pub(crate) async fn follow(app: Arc<App>, mut outputs: Receiver<Arc<Committed>>) {
    let mut catching_up = std::pin::pin!(Fuse::terminated());
    let mut behind = false;
    loop {
        let received = tokio::select! {
            () = app.stop.cancelled() => return,
            () = &mut catching_up => {
                if std::mem::take(&mut behind) {
                    catching_up.set(catch_up(app.clone()).fuse());
                }
                continue;
            }
            received = outputs.recv() => received,
        };
        if let Ok(record) = &received {
            app.answers.hear(record);
        }
        match received {
            Ok(record) if record.schema == "recommendations" => {
                app.hub.latest.lock().put(&record);
                app.hub.push(&record.key, || Push::of_record(&record));
            }
            Ok(_) => {}
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "the gateway fell behind the log; open sockets are brought up to date by query");
                app.metrics.skipped.inc_by(missed);
                *app.hub.latest.lock() = Latest::default();
                if catching_up.is_terminated() {
                    catching_up.set(catch_up(app.clone()).fuse());
                } else {
                    behind = true;
                }
            }
            Err(RecvError::Closed) => return,
        }
    }
}

/// Pushes were missed: whose, nobody knows. All who are connected get what the state says now.
async fn catch_up(app: Arc<App>) {
    let ask = async |(user, before): (String, Option<Arc<Push>>)| {
        let question = Question { group: "customers", key: &user, path: "recommendations" };
        if let Ok(Some(value)) = query::ask(&app, &question, &HeaderMap::new()).await
            && let Some(push) = Push::of(&value, None)
        {
            app.hub.push_after(&user, before.as_ref(), push);
        }
    };
    stream::iter(app.hub.connected()).for_each_concurrent(ASKED_AT_A_TIME, ask).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tillflow_schemas::Timestamp;

    fn record(user: &str, offset: i64) -> Arc<Committed> {
        let value = json!({ "user_id": user, "items": [{ "product_id": format!("p{offset}") }] });
        Arc::new(Committed {
            topic: "recommendations".into(),
            schema: "recommendations".into(),
            partition: 0,
            offset,
            at: Timestamp::EARLIEST,
            key: user.into(),
            value: Some(value.to_string().into_bytes()),
        })
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_newest_is() {
        let mut latest = Latest::default();
        for n in 0..20 * REMEMBERED as i64 {
            latest.put(&record(&format!("u{n}"), n));
        }
        assert!(latest.young.len() + latest.old.len() <= 2 * REMEMBERED);
        assert_eq!(latest.get(&format!("u{}", 20 * REMEMBERED - 1)).unwrap().offset, 20 * REMEMBERED as i64 - 1);
        assert!(latest.get("u0").is_none());
    }

    #[tokio::test]
    async fn a_slow_socket_sees_the_latest_and_an_empty_house_is_forgotten() {
        let hub = Arc::new(Hub::default());
        let (mut seat, nothing) = hub.join("u1");
        assert!(nothing.is_none());
        for offset in 1..=100 {
            hub.push("u1", || Push::of_record(&record("u1", offset)));
        }
        let push = seat.next().await.unwrap();
        assert_eq!((push.ids.as_str(), push.place), (r#"["p100"]"#, Some((0, 100))));
        assert!(push.is_seen(Some((0, 100))) && !push.is_seen(Some((0, 99))) && !push.is_seen(Some((1, 100))) && !push.is_seen(None));
        let (second, _) = hub.join("u1");
        drop(seat);
        assert_eq!(hub.users.lock().len(), 1);
        drop(second);
        assert!(hub.users.lock().is_empty());
    }

    #[test]
    fn an_answer_from_state_never_replaces_a_push_that_came_meanwhile() {
        let hub = Arc::new(Hub::default());
        let (seat, _) = hub.join("u1");
        hub.push("u1", || Push::of_record(&record("u1", 1)));
        let before = hub.connected().remove(0).1;
        let answer = || Push::of(&json!({ "items": [{ "product_id": "answer" }] }), None).unwrap();
        hub.push_after("u1", before.as_ref(), answer());
        assert_eq!(seat.pushes.borrow().as_ref().unwrap().ids, r#"["answer"]"#);
        hub.push("u1", || Push::of_record(&record("u1", 2)));
        hub.push_after("u1", before.as_ref(), answer());
        assert_eq!(seat.pushes.borrow().as_ref().unwrap().ids, r#"["p2"]"#);
    }

    #[test]
    fn a_record_without_products_is_no_push() {
        assert_eq!(Push::of(&json!({ "items": [] }), None), None);
        assert_eq!(Push::of(&json!({}), None), None);
    }
}
