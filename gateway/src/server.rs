//! The accept loop: a bound on connections, a bound on how long headers may take, and an orderly end.

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{io, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// How long a connection may stay silent before a request's headers are complete.
const HEADERS_WITHIN: Duration = Duration::from_secs(75);

/// How long requests and sockets have to end once the gateway stops.
pub(crate) const END_WITHIN: Duration = Duration::from_millis(1_800);

/// Serves until `stop`, then lets what runs end.
pub(crate) async fn serve(listener: TcpListener, router: Router, connections: usize, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &room) => accepted,
            Some(_) = open.join_next() => continue,
        };
        match accepted {
            Ok((stream, place)) => {
                let (router, stop) = (router.clone(), stop.clone());
                open.spawn(async move {
                    connection(stream, router, stop).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file descriptors, mostly: some connection has to end first.
                tracing::warn!(%error, "can't accept a connection");
                tokio::select! { () = stop.cancelled() => break, () = tokio::time::sleep(Duration::from_millis(200)) => {} }
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(END_WITHIN, async { while open.join_next().await.is_some() {} }).await.is_err() {
        tracing::warn!(open = open.len(), "connections did not end in time");
    }
}

async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    // Waiting for room before accepting leaves the others in the kernel's queue, which is bounded.
    let place = room.clone().acquire_owned().await.map_err(io::Error::other)?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return Ok((stream, place)),
            Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {}
            Err(e) => return Err(e),
        }
    }
}

async fn connection(stream: TcpStream, router: Router, stop: CancellationToken) {
    // Pushes are small and must not wait for more to send with them.
    let _ = stream.set_nodelay(true);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADERS_WITHIN);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).with_upgrades();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
}
