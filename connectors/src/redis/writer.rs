//! The one that writes to Redis: connects, writes what waits, reads again what must be, and starts over when it breaks.

use super::{
    Keys, Shared,
    model::{Change, Key, Kind},
    pending::Push,
    refresh::{self, Fresh},
};
use redis::{AsyncConnectionConfig, Pipeline, RedisResult, Value, aio::MultiplexedConnection};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tillflow_engine::port::Shop;
use tokio::time::{Instant, sleep};

/// Commands sent before their answers are awaited.
const AT_A_TIME: usize = 512;

/// Keys read from state in one go.
const READ_AT_A_TIME: usize = 64;

/// Names that Redis is asked for in one go.
const SCAN_AT_A_TIME: usize = 500;

/// How long Redis may take to answer, and to accept a connection.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const CONNECT_WITHIN: Duration = Duration::from_secs(3);

/// The first and the longest wait before the next attempt to connect.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How often Redis is asked whether it still has its data, and how long keys of a task being restored wait.
const CHECK_EVERY: Duration = Duration::from_secs(2);
const RESTORING_WAIT: Duration = Duration::from_millis(500);

/// Between two times that everything is written anew because the mark was gone: a Redis that is short of memory may throw
/// it out again and again.
const RESYNC_APART: Duration = Duration::from_secs(30);

/// How long the last writes may take.
const END_WITHIN: Duration = Duration::from_secs(1);

/// Stands in Redis as long as its data does; gone, the data is too.
const MARK: &str = "tillflow:read-models";

pub(super) struct Writer {
    client: redis::Client,
    ttl_s: u64,
    shop: Shop,
    keys: Option<Keys>,
    shared: Arc<Shared>,
    /// Which process of Redis was seen last; another may have older data.
    run_id: Option<String>,
    /// Where the walk over the names in Redis stands.
    scan: Option<Scan>,
    /// When it was last found empty.
    emptied: Option<Instant>,
}

/// A walk over the names in Redis.
struct Scan {
    pattern: &'static str,
    cursor: u64,
}

/// Why a connection's work ended.
enum End {
    Broken(redis::RedisError),
    Stopped,
}

impl From<redis::RedisError> for End {
    fn from(error: redis::RedisError) -> Self {
        Self::Broken(error)
    }
}

impl Writer {
    pub fn new(client: redis::Client, ttl_s: u64, shop: Shop, keys: Option<Keys>, shared: Arc<Shared>) -> Self {
        Self { client, ttl_s, shop, keys, shared, run_id: None, scan: None, emptied: None }
    }

    /// Writes until the last is written, through any number of outages.
    pub async fn run(mut self) {
        let mut wait = FIRST_WAIT;
        let mut outage = false;
        loop {
            let last = self.shared.last.clone();
            let connected = tokio::select! {
                connected = self.connect() => connected,
                () = last.cancelled() => return,
            };
            let ended = match connected {
                Ok(connection) => {
                    tracing::info!("connected to Redis");
                    (wait, outage) = (FIRST_WAIT, false);
                    self.shared.metrics.connected.set(1);
                    let ended = self.serve(connection).await;
                    self.shared.metrics.connected.set(0);
                    ended
                }
                Err(error) => End::Broken(error),
            };
            let dropped = self.shared.pending.lock().disconnect();
            self.shared.metrics.dropped.inc_by(dropped as u64);
            let End::Broken(error) = ended else { return };
            self.shared.metrics.outages.inc();
            if !outage {
                tracing::warn!(%error, "Redis is away; read models are made right again when it is back");
                outage = true;
            }
            // Jitter: many instances lose the same Redis at the same moment.
            tokio::select! {
                () = self.shared.last.cancelled() => return,
                () = sleep(wait.mul_f64(rand::random_range(0.5..1.0))) => {}
            }
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn connect(&mut self) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_WITHIN)).set_response_timeout(Some(ANSWER_WITHIN));
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        let info: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await?;
        let run_id = info.lines().find_map(|l| l.strip_prefix("run_id:")).map(|id| id.trim().to_owned());
        // A restarted Redis has lost all since its last snapshot, and after our own restart nobody knows what was written.
        let mark: Option<String> = redis::cmd("GET").arg(MARK).query_async(&mut connection).await?;
        if self.run_id.is_none() || run_id != self.run_id || mark.is_none() {
            self.shared.pending.lock().spoil_all();
        }
        self.run_id = run_id;
        redis::cmd("SET").arg(MARK).arg(1).query_async::<()>(&mut connection).await?;
        self.shared.pending.lock().connected = true;
        Ok(connection)
    }

    async fn serve(&mut self, mut connection: MultiplexedConnection) -> End {
        let mut check = tokio::time::interval_at(Instant::now() + CHECK_EVERY, CHECK_EVERY);
        loop {
            let last = self.shared.last.is_cancelled();
            let ending = self.shared.last.clone();
            let round = tokio::select! {
                round = self.round(&mut connection) => round,
                () = async { ending.cancelled().await; sleep(END_WITHIN).await } => Err(End::Stopped),
            };
            let more = match round {
                Ok(more) => more,
                Err(end) => return end,
            };
            if last {
                return End::Stopped;
            }
            if more {
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                () = self.shared.work.notified() => {}
                () = self.shared.last.cancelled() => {}
                _ = check.tick() => if let Err(error) = self.check(&mut connection).await { return error.into() },
            }
        }
    }

    /// Writes what waits, then reads a little of what must be read again. Whether there is more of that.
    async fn round(&mut self, connection: &mut MultiplexedConnection) -> Result<bool, End> {
        let (changes, pushes) = {
            let mut pending = self.shared.pending.lock();
            self.shared.metrics.pending.set(i64::try_from(pending.len()).unwrap_or(i64::MAX));
            pending.take()
        };
        let written = changes.len();
        self.write(connection, changes, pushes).await?;
        self.shared.metrics.written.inc_by(written as u64);
        if self.shared.last.is_cancelled() {
            return Ok(false);
        }
        self.begin_resync().await;
        self.scan(connection).await?;
        self.refresh(connection).await?;
        let pending = self.shared.pending.lock();
        Ok(pending.has_work() || pending.has_stale() || self.scan.is_some())
    }

    /// Writes changes, then pushes. What could not be written is put back.
    async fn write(
        &self,
        connection: &mut MultiplexedConnection,
        changes: HashMap<Key, Change>,
        pushes: VecDeque<Push>,
    ) -> Result<(), End> {
        let mut changes: Vec<_> = changes.into_iter().collect();
        let mut pushes: Vec<_> = pushes.into();
        while !changes.is_empty() {
            let batch = changes.split_off(changes.len().saturating_sub(AT_A_TIME));
            if let Err(end) = self.write_batch(connection, batch).await {
                self.shared.pending.lock().put_back(changes, pushes);
                return Err(end);
            }
        }
        while !pushes.is_empty() {
            let rest = pushes.split_off(pushes.len().min(AT_A_TIME));
            let sent = self.publish(connection, &pushes).await;
            let unsent = if sent.is_ok() { rest } else { pushes.into_iter().chain(rest).collect() };
            if let Err(error) = sent {
                self.shared.metrics.dropped.inc_by(unsent.len() as u64);
                self.shared.pending.lock().put_back([], unsent);
                return Err(error.into());
            }
            pushes = unsent;
        }
        Ok(())
    }

    async fn write_batch(&self, connection: &mut MultiplexedConnection, batch: Vec<(Key, Change)>) -> Result<(), End> {
        let mut pipeline = redis::pipe();
        let mut owners = Vec::with_capacity(batch.len());
        for (n, (key, change)) in batch.iter().enumerate() {
            let before = pipeline.len();
            command(&mut pipeline, key, change, self.ttl_s);
            owners.extend(std::iter::repeat_n(n, pipeline.len() - before));
        }
        let answers: Vec<RedisResult<Value>> = match pipeline.ignore_errors().query_async(connection).await {
            Ok(answers) => answers,
            Err(error) => {
                self.shared.pending.lock().put_back(batch, []);
                return Err(error.into());
            }
        };
        let mut failure = None;
        let mut again = Vec::new();
        for (answer, n) in answers.into_iter().zip(owners) {
            let (Err(error), Some((key, change))) = (answer, batch.get(n)) else { continue };
            if error.code() == Some("WRONGTYPE") {
                self.shared.metrics.refused.inc();
                tracing::warn!(key = key.name(), "Redis holds another type under this name; it is left alone");
            } else {
                // Out of memory, read-only, loading: it may be over soon.
                again.push((key.clone(), change.clone()));
                failure = Some(error);
            }
        }
        self.shared.pending.lock().put_back(again, []);
        failure.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Sets lists and publishes them.
    async fn publish(&self, connection: &mut MultiplexedConnection, pushes: &[Push]) -> RedisResult<()> {
        let mut pipeline = redis::pipe();
        for push in pushes {
            let list = Key { kind: Kind::List, id: push.user.clone() }.name();
            // A page that hears the push finds the list, too.
            pipeline.cmd("SET").arg(&list).arg(&push.ids).arg("EX").arg(self.ttl_s).ignore();
            pipeline.cmd("PUBLISH").arg(&list).arg(&push.ids).ignore();
        }
        pipeline.query_async::<()>(connection).await?;
        self.shared.metrics.published.inc_by(pushes.len() as u64);
        Ok(())
    }

    /// If everything must be written anew, notes all keys there are.
    async fn begin_resync(&mut self) {
        {
            let mut pending = self.shared.pending.lock();
            if !pending.take_resync() {
                return;
            }
            pending.spoil_known(|key| self.shared.owns(&self.shop, key));
        }
        self.scan = Some(Scan { pattern: "product:*", cursor: 0 });
        let Some(keys) = self.keys.clone() else { return };
        let (shared, shop) = (self.shared.clone(), self.shop.clone());
        let asked = tokio::task::spawn_blocking(move || {
            for (group, kind) in [("products", Kind::Product), ("customers", Kind::User)] {
                keys(group, &mut |id| {
                    if let Some(key) = Key::new(kind, id).filter(|key| shared.owns(&shop, key)) {
                        shared.pending.lock().spoil(key);
                    }
                });
            }
        });
        if asked.await.is_err() {
            tracing::error!("listing the keys of the state broke off");
        }
    }

    /// Asks Redis for a few more of its own keys: what stands there may be older than the state.
    async fn scan(&mut self, connection: &mut MultiplexedConnection) -> Result<(), End> {
        let Some(scan) = &mut self.scan else { return Ok(()) };
        let mut command = redis::cmd("SCAN");
        command.arg(scan.cursor).arg("MATCH").arg(scan.pattern).arg("COUNT").arg(SCAN_AT_A_TIME).arg("TYPE").arg("hash");
        let (cursor, names): (u64, Vec<Vec<u8>>) = command.query_async(connection).await?;
        scan.cursor = cursor;
        if cursor == 0 {
            self.scan = (scan.pattern == "product:*").then_some(Scan { pattern: "user:*", cursor: 0 });
        }
        let found = names.iter().filter_map(|name| Key::of_name(std::str::from_utf8(name).ok()?));
        let own: Vec<_> = found.filter(|key| self.shared.owns(&self.shop, key)).collect();
        let mut pending = self.shared.pending.lock();
        for key in own {
            pending.spoil(key);
        }
        Ok(())
    }

    /// Reads a few keys from state and writes them.
    async fn refresh(&self, connection: &mut MultiplexedConnection) -> Result<(), End> {
        let stale = self.shared.pending.lock().take_stale(READ_AT_A_TIME);
        if stale.is_empty() {
            return Ok(());
        }
        let (shop, shared) = (self.shop.clone(), self.shared.clone());
        let kept = stale.clone();
        let read = tokio::task::spawn_blocking(move || {
            let own = stale.into_iter().filter(|key| shared.owns(&shop, key));
            own.map(|key| refresh::read(&shop, key)).collect::<Vec<_>>()
        });
        let Ok(read) = read.await else {
            tracing::error!(keys = kept.len(), "reading keys for Redis broke off");
            return Ok(());
        };
        let mut fresh = Vec::new();
        let mut later = false;
        for one in read {
            match one {
                Fresh::Read(key, change) => fresh.push((key, change)),
                Fresh::Later(key) => {
                    later = true;
                    self.shared.pending.lock().spoil(key);
                }
                Fresh::Nothing => {}
            }
        }
        self.shared.metrics.refreshed.inc_by(fresh.len() as u64);
        self.write_batch(connection, fresh).await?;
        if later {
            // Live changes go on meanwhile: they wake the next round.
            tokio::select! { () = sleep(RESTORING_WAIT) => {}, () = self.shared.work.notified() => {} }
        }
        Ok(())
    }

    /// Asks whether Redis still has its data.
    async fn check(&mut self, connection: &mut MultiplexedConnection) -> RedisResult<()> {
        let mark: Option<String> = redis::cmd("GET").arg(MARK).query_async(connection).await?;
        if mark.is_some() || self.emptied.is_some_and(|at| at.elapsed() < RESYNC_APART) {
            return Ok(());
        }
        tracing::warn!("Redis has lost its data; all read models are written anew");
        self.emptied = Some(Instant::now());
        redis::cmd("SET").arg(MARK).arg(1).query_async::<()>(connection).await?;
        self.shared.pending.lock().spoil_all();
        self.shared.work.notify_one();
        Ok(())
    }
}

/// The commands that make a change.
fn command(pipeline: &mut Pipeline, key: &Key, change: &Change, ttl_s: u64) {
    let name = key.name();
    if key.kind == Kind::List {
        match change.0.get("") {
            Some(Some(ids)) => drop(pipeline.cmd("SET").arg(name).arg(ids).arg("EX").arg(ttl_s)),
            _ => drop(pipeline.cmd("DEL").arg(name)),
        }
        return;
    }
    let set: Vec<_> = change.0.iter().filter_map(|(field, value)| Some((*field, value.as_deref()?))).collect();
    if !set.is_empty() {
        pipeline.cmd("HSET").arg(&name).arg(set);
    }
    let gone: Vec<_> = change.0.iter().filter(|(_, value)| value.is_none()).map(|(field, _)| *field).collect();
    if !gone.is_empty() {
        pipeline.cmd("HDEL").arg(&name).arg(gone);
    }
}
