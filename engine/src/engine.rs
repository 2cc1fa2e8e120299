//! A running engine: its threads, and the port that gateway and connectors use.

use crate::{
    append::{self, Appender, EmbeddedAppender},
    config::EngineConfig,
    globals::SharedGlobals,
    log::{
        Log, LogError, NewRecord, Reader, TopicPartition,
        embedded::{Embedded, EmbeddedLog, EmbeddedReader},
        kafka::{Kafka, KafkaAppender, KafkaLog, KafkaReader, Stores, drained as kafka_drained, write_now},
    },
    metrics::Metrics,
    owners::Owners,
    port::{Append, Committed, LogSlice, Port, PortError, Readiness, Shop, TaskStatus},
    status::{TaskView, Tasks},
    tail,
    wall::Wall,
    watch::{Warnings, Watch},
    wiring::{Wired, Wiring, WiringError, wire},
    worker::{Meta, Worker},
};
use parking_lot::Mutex;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tillflow_engine_api::{Group, Query, QueryFn};
use tillflow_schemas::{Catalog, Codec, TaskOwner, Timestamp, partition::partition};
use tillflow_state::StateError;
use tokio::sync::{broadcast, oneshot};

/// How often the upkeep of the log looks whether it is to stop, and rests between two steps.
const LOOK: Duration = Duration::from_millis(100);

/// Why an engine could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The topology or its settings.
    #[error(transparent)]
    Wiring(#[from] WiringError),
    /// The data directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A thread.
    #[error("thread {0}: {1}")]
    Thread(String, #[source] std::io::Error),
    /// The metrics.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// A running engine. Stopped by [`Engine::stop`]; dropped, its threads go on.
pub struct Engine {
    running: Arc<Running>,
    threads: Vec<(String, JoinHandle<Result<(), String>>)>,
}

struct Running {
    catalog: Arc<Catalog>,
    codec: Arc<Codec>,
    metrics: Metrics,
    tasks: Tasks,
    warnings: Warnings,
    owners: Owners,
    /// This instance's name among them.
    instance: Option<String>,
    globals: SharedGlobals,
    expected: Vec<(String, u32)>,
    queries: BTreeMap<(String, &'static str), QueryFn>,
    /// Of all groups; and the names of those that run here.
    partitions: BTreeMap<String, u32>,
    here: Vec<&'static str>,
    appender: Mutex<Option<Arc<dyn Appender>>>,
    outputs: broadcast::Sender<Arc<Committed>>,
    stop: Arc<AtomicBool>,
    failure: Mutex<Option<String>>,
    wake: Box<dyn Fn() + Send + Sync>,
    drained: Drained,
    log: Option<Embedded>,
}

type Drained = Box<dyn Fn() -> Result<bool, LogError> + Send + Sync>;
type Work = Box<dyn FnOnce(&AtomicBool) -> Result<(), String> + Send>;

/// Collects what an engine consists of before its threads start.
struct Builder {
    catalog: Arc<Catalog>,
    codec: Arc<Codec>,
    metrics: Metrics,
    wiring: Wiring,
    globals: SharedGlobals,
    tasks: Tasks,
    outputs: broadcast::Sender<Arc<Committed>>,
    stop: Arc<AtomicBool>,
    config: EngineConfig,
    workers: Vec<(String, Work)>,
    /// The log, where it is in this process.
    log: Option<Embedded>,
}

impl Builder {
    fn new(groups: &[Group], catalog: &Arc<Catalog>, codec: &Arc<Codec>, config: &EngineConfig) -> Result<Self, StartError> {
        let metrics = Metrics::new()?;
        let wiring = wire(groups, catalog, codec, config, &metrics)?;
        Ok(Self {
            catalog: catalog.clone(),
            codec: codec.clone(),
            metrics,
            wiring,
            globals: SharedGlobals::default(),
            tasks: Tasks::default(),
            outputs: broadcast::channel(tail::CAPACITY).0,
            stop: Arc::default(),
            config: config.clone(),
            workers: Vec::new(),
            log: None,
        })
    }

    /// Adds a worker; its way to the log is made on its own thread.
    fn worker<L: Log>(&mut self, name: String, join: impl FnOnce() -> Result<L, LogError> + Send + 'static, wired: &Wired) {
        let (group, inputs, partitions, shared) = (wired.group.clone(), wired.inputs.clone(), wired.partitions, wired.shared.clone());
        let (globals, tasks) = (self.globals.clone(), self.tasks.clone());
        let run = move |stop: &AtomicBool| {
            let log = join().map_err(|e| e.to_string())?;
            Worker::new(log, &group, inputs, partitions, &shared, &globals, &tasks).run(stop, false).map_err(|e| e.to_string())
        };
        self.workers.push((name, Box::new(run)));
    }

    /// The records that take the instance's place in its groups.
    fn places(&self) -> Vec<NewRecord> {
        let groups = self.wiring.groups.iter().map(|w| w.group.name).filter(|name| self.config.runs(name));
        let places =
            self.config.claimant.iter().flat_map(|c| groups.clone().filter_map(|g| c.take_place(&self.catalog, g, self.config.wall.now())));
        places.collect()
    }

    /// Starts all threads. The tail is positioned first, so that nothing the workers write escapes it.
    fn start(
        self,
        expected: Vec<(String, u32)>,
        mut globals: impl Reader + 'static,
        mut tail: impl Reader + 'static,
        appender: Arc<dyn Appender>,
        wake: Box<dyn Fn() + Send + Sync>,
        drained: Drained,
    ) -> Result<Engine, StartError> {
        let began = Instant::now();
        tail::begin(&mut tail, &self.catalog)?;
        tracing::debug!(took = ?began.elapsed(), "the outputs' ends are known");
        let groups = &self.wiring.groups;
        let owners = Owners::new(self.config.claimant.clone());
        let queries = groups.iter().flat_map(|w| {
            let parts = w.group.parts.iter().flat_map(|p| &p.declared.queries);
            parts.map(|(name, answer)| ((w.group.name.to_owned(), *name), answer.clone()))
        });
        let running = Arc::new(Running {
            catalog: self.catalog.clone(),
            codec: self.codec.clone(),
            metrics: self.metrics,
            tasks: self.tasks,
            warnings: Warnings::default(),
            owners: owners.clone(),
            instance: self.config.claimant.as_ref().map(|c| c.instance.clone()),
            globals: self.globals.clone(),
            expected,
            queries: queries.collect(),
            partitions: groups.iter().map(|w| (w.group.name.to_owned(), w.partitions)).collect(),
            here: groups.iter().map(|w| w.group.name).filter(|name| self.config.runs(name)).collect(),
            appender: Mutex::new(Some(appender)),
            outputs: self.outputs.clone(),
            stop: self.stop.clone(),
            failure: Mutex::new(None),
            wake,
            drained,
            log: self.log,
        });
        let mut engine = Engine { running: running.clone(), threads: Vec::new() };
        let (catalog, codec, stop, tables, topics) =
            (self.catalog.clone(), self.codec.clone(), self.stop.clone(), self.globals, self.wiring.globals);
        engine.spawn("globals".into(), move || tables.follow(&mut globals, &topics, &catalog, &codec, &stop).map_err(|e| e.to_string()))?;
        let (catalog, codec, stop, outputs) = (self.catalog, self.codec, self.stop.clone(), self.outputs);
        engine
            .spawn("tail".into(), move || tail::follow(&mut tail, &catalog, &codec, &outputs, &owners, &stop).map_err(|e| e.to_string()))?;
        let watch = Watch::new(&running.tasks, &running.metrics, &running.warnings);
        let stop = self.stop.clone();
        engine.spawn("watch".into(), move || {
            watch.run(&stop);
            Ok(())
        })?;
        for (name, run) in self.workers {
            let stop = self.stop.clone();
            engine.spawn(name, move || run(&stop))?;
        }
        Ok(engine)
    }
}

impl Engine {
    /// Runs these groups on an embedded log.
    ///
    /// # Errors
    /// When the topology or its settings are wrong, or the log can't be read.
    pub fn embedded(log: &Embedded, groups: &[Group], codec: &Arc<Codec>, config: &EngineConfig) -> Result<Self, StartError> {
        let catalog = Arc::new(log.catalog().clone());
        let mut builder = Builder::new(groups, &catalog, codec, config)?;
        builder.log = Some(log.clone());
        let mut expected = Vec::new();
        let wired = std::mem::take(&mut builder.wiring.groups);
        for w in wired.iter().filter(|w| config.runs(w.group.name)) {
            let workers = config.workers.clamp(1, w.partitions);
            expected.extend((0..w.partitions).map(|p| (w.group.name.to_owned(), p)));
            for n in 0..workers {
                let own = (0..w.partitions).filter(|p| p % workers == n).collect();
                let (log, group) = (log.clone(), w.group.name);
                builder.worker(format!("{group}-{n}"), move || Ok(EmbeddedLog::new(&log, group, own)), w);
            }
        }
        builder.wiring.groups = wired;
        let (appender, _writer) = EmbeddedAppender::start(log);
        let consumers: Vec<_> = builder.wiring.groups.iter().map(|w| (w.group.name, w.inputs.clone(), w.partitions)).collect();
        let inputs: Vec<_> = consumers.iter().filter(|(name, ..)| config.runs(name)).cloned().collect();
        let (wake, read) = (log.clone(), log.clone());
        let drained = Box::new(move || Ok(embedded_is_drained(&read, &inputs)?));
        let wake = Box::new(move || wake.wake());
        let mut engine = builder.start(expected, EmbeddedReader::new(log), EmbeddedReader::new(log), appender, wake, drained)?;
        if let Some(every) = config.upkeep {
            let (log, wall, stop) = (log.clone(), config.wall.clone(), engine.running.stop.clone());
            engine.spawn("upkeep".into(), move || {
                upkeep(&log, &consumers, every, &wall, &stop);
                Ok(())
            })?;
        }
        Ok(engine)
    }

    /// Runs these groups on Kafka, whose topics are as declared. Stores lie in `stores`.
    ///
    /// # Errors
    /// When the topology or its settings are wrong, or the cluster can't be reached.
    pub fn kafka(kafka: &Kafka, stores: &Stores, groups: &[Group], codec: &Arc<Codec>, config: &EngineConfig) -> Result<Self, StartError> {
        let mut builder = Builder::new(groups, &kafka.catalog, codec, config)?;
        let wired = std::mem::take(&mut builder.wiring.groups);
        for w in wired.iter().filter(|w| config.runs(w.group.name)) {
            for n in 0..config.workers.clamp(1, w.partitions) {
                let (kafka, group, inputs, stores, leave) = (kafka.clone(), w.group.name, w.inputs.clone(), stores.clone(), config.leave);
                builder.worker(format!("{group}-{n}"), move || KafkaLog::join(&kafka, group, n, &inputs, &stores, leave), w);
            }
        }
        let inputs: Vec<_> =
            wired.iter().filter(|w| config.runs(w.group.name)).map(|w| (w.group.name, w.inputs.clone(), w.partitions)).collect();
        builder.wiring.groups = wired;
        let cluster = kafka.clone();
        let drained = Box::new(move || kafka_drained(&cluster, &inputs));
        let (globals, tail) = (KafkaReader::new(kafka, false)?, KafkaReader::new(kafka, false)?);
        let appender = Arc::new(KafkaAppender::new(kafka)?);
        let began = Instant::now();
        // Before it joins its groups.
        write_now(kafka, &builder.places())?;
        tracing::debug!(took = ?began.elapsed(), "the instance's places are taken");
        builder.start(Vec::new(), globals, tail, appender, Box::new(|| {}), drained)
    }

    fn spawn(&mut self, name: String, run: impl FnOnce() -> Result<(), String> + Send + 'static) -> Result<(), StartError> {
        let running = self.running.clone();
        let label = name.clone();
        let work = move || {
            let result = run();
            if let Err(reason) = &result {
                tracing::error!(thread = label, "{reason}");
                running.failure.lock().get_or_insert_with(|| reason.clone());
                // One without the others would pretend to run.
                running.stop.store(true, Ordering::Release);
                (running.wake)();
            }
            result
        };
        // Named, so that profilers and `top` tell them apart.
        let thread = std::thread::Builder::new().name(name.clone()).spawn(work).map_err(|e| StartError::Thread(name.clone(), e))?;
        self.threads.push((name, thread));
        Ok(())
    }

    /// What gateway and connectors use.
    pub fn port(&self) -> Shop {
        self.running.clone()
    }

    /// Whether a thread failed, or it was told to stop.
    pub fn is_stopping(&self) -> bool {
        self.running.stop.load(Ordering::Acquire)
    }

    /// Whether every task has processed and committed all that was written. Exact on the embedded log: judged by what
    /// is committed, at one moment.
    ///
    /// # Errors
    /// When the state can't be read.
    pub fn is_drained(&self) -> Result<bool, LogError> {
        (self.running.drained)()
    }

    /// The tasks of this process.
    pub fn tasks(&self) -> Vec<((String, u32), TaskView)> {
        self.running.tasks.all()
    }

    /// Stops: workers commit what is done; then the threads end.
    ///
    /// # Errors
    /// The first failure of a thread, in words.
    pub fn stop(self) -> Result<(), String> {
        self.running.stop.store(true, Ordering::Release);
        (self.running.wake)();
        self.running.appender.lock().take();
        let mut failure = None;
        for (name, thread) in self.threads {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(reason)) => drop(failure.get_or_insert(format!("{name}: {reason}"))),
                Err(_) => drop(failure.get_or_insert(format!("{name}: panicked"))),
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

/// Looks the log through until `stop` is set.
fn upkeep(log: &Embedded, groups: &[(&str, Vec<usize>, u32)], every: Duration, wall: &Wall, stop: &AtomicBool) {
    while !stop.load(Ordering::Acquire) {
        let more = log.tidy(wall.now(), |at| consumed(log, groups, at)).unwrap_or_else(|e| {
            tracing::warn!("old records stay in the log for now: {e}");
            false
        });
        let (started, pause) = (Instant::now(), if more { Duration::ZERO } else { every });
        loop {
            std::thread::park_timeout(LOOK);
            if started.elapsed() >= pause || stop.load(Ordering::Acquire) {
                break;
            }
        }
    }
}

/// Up to where all groups that read a partition have committed.
fn consumed(log: &Embedded, groups: &[(&str, Vec<usize>, u32)], at: TopicPartition) -> Result<i64, StateError> {
    let name = log.catalog().topics().get(at.topic).map_or("", |t| t.name.as_str());
    let readers = groups.iter().filter(|(_, inputs, _)| inputs.contains(&at.topic));
    readers
        .map(|(group, ..)| Ok(Meta::read(&log.state(group, at.partition))?.offsets.get(name).copied().unwrap_or(0)))
        .try_fold(i64::MAX, |least, offset: Result<i64, StateError>| Ok(least.min(offset?)))
}

fn embedded_is_drained(log: &Embedded, groups: &[(&str, Vec<usize>, u32)]) -> Result<bool, StateError> {
    let before = log.writes();
    for (group, inputs, partitions) in groups {
        for partition in 0..*partitions {
            let meta = Meta::read(&log.state(group, partition))?;
            for &topic in inputs {
                let name = log.catalog().topics().get(topic).map_or("", |t| t.name.as_str());
                if meta.offsets.get(name).copied().unwrap_or(0) < log.end(TopicPartition { topic, partition }) {
                    return Ok(false);
                }
            }
        }
    }
    Ok(log.writes() == before)
}

impl Running {
    /// Where a task is that is not here.
    fn elsewhere(&self, group: &str, number: u32) -> PortError {
        match self.owners.of(group, number) {
            // It was here, and whose it is now is not known yet.
            Some(owner) if Some(&owner.instance) == self.instance.as_ref() => PortError::Restoring,
            Some(TaskOwner { address: Some(address), .. }) => PortError::Elsewhere(address),
            Some(owner) => PortError::Unreachable(owner.instance),
            None => PortError::Restoring,
        }
    }
}

impl Port for Running {
    fn append(&self, records: Vec<Append>) -> oneshot::Receiver<Result<(), PortError>> {
        let (answer, receiver) = oneshot::channel();
        let appender = self.appender.lock().clone();
        match (append::place(&self.catalog, &self.codec, records), appender) {
            (Ok(records), Some(appender)) => appender.append(records, answer),
            (Ok(_), None) => drop(answer.send(Err(PortError::Unavailable("shutting down".into())))),
            (Err(e), _) => drop(answer.send(Err(e))),
        }
        receiver
    }

    fn query(&self, group: &str, name: &str, key: &str, rest: &str) -> Result<Option<Value>, PortError> {
        let Some(((_, _), answer)) = self.queries.iter().find(|((g, n), _)| g == group && *n == name) else {
            return Err(PortError::NoSuchQuery(format!("{group}/{name}")));
        };
        let partitions = self.partitions.get(group).copied().unwrap_or(1);
        let number = partition(key.as_bytes(), partitions);
        let view = self.tasks.get(group, number).ok_or_else(|| self.elsewhere(group, number))?;
        let state = view.state.ok_or(PortError::Restoring)?;
        let globals = self.globals.read();
        let mut result = Ok(None);
        state.read(&mut |read| {
            result = answer(&Query { key, rest, now: view.clock, state: read, globals: &globals, place: view.place });
        });
        result.map_err(|e| PortError::Failed(e.to_string()))
    }

    fn rows(
        &self,
        group: &str,
        partition: u32,
        from: &[u8],
        to: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), PortError> {
        let view = self.tasks.get(group, partition);
        let view = view.ok_or_else(|| PortError::Failed(format!("there is no task {group} {partition} on this instance")))?;
        let state = view.state.ok_or(PortError::Restoring)?;
        let mut result = Ok(());
        state.read(&mut |read| result = read.scan(from, to, visit));
        result.map_err(|e| PortError::Failed(e.to_string()))
    }

    fn pause(&self, group: &str, partition: u32, paused: bool) -> Result<(), PortError> {
        if !self.tasks.pause(group, partition, paused) {
            return Err(self.elsewhere(group, partition));
        }
        tracing::info!(group, partition, paused, "told by a person");
        Ok(())
    }

    fn read_log(&self, at: TopicPartition, from: i64, limit: usize) -> Result<LogSlice, PortError> {
        let log = self.log.as_ref().ok_or_else(|| PortError::Refused("the log is not in this process; read it from the cluster".into()))?;
        let failed = |e: LogError| PortError::Failed(e.to_string());
        let end = log.end(at);
        Ok(LogSlice { begin: log.begin(at).map_err(failed)?, end, records: log.read(at, from, limit).map_err(failed)? })
    }

    fn append_raw(&self, records: Vec<NewRecord>) -> oneshot::Receiver<Result<(), PortError>> {
        let (answer, receiver) = oneshot::channel();
        match self.appender.lock().clone() {
            Some(appender) => appender.append(records, answer),
            None => drop(answer.send(Err(PortError::Unavailable("shutting down".into())))),
        }
        receiver
    }

    fn queries(&self, group: &str) -> Vec<&'static str> {
        self.queries.keys().filter(|(g, _)| g == group).map(|(_, n)| *n).collect()
    }

    fn subscribe(&self) -> broadcast::Receiver<Arc<Committed>> {
        self.outputs.subscribe()
    }

    fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    fn readiness(&self) -> Readiness {
        let state = |group: &str, partition: u32, is_open: bool| match is_open {
            true if self.tasks.paused(group).contains(&partition) => "paused",
            true => "running",
            false => "restoring",
        };
        let tasks: Vec<_> = self
            .tasks
            .all()
            .into_iter()
            .map(|((group, partition), view)| TaskStatus {
                state: state(&group, partition, view.state.is_some()).into(),
                group,
                partition,
                lag: view.lag,
                clock: (view.clock > Timestamp::MIN).then_some(view.clock),
                restored: view.restored,
            })
            .collect();
        let waiting = tasks.iter().filter(|t| t.state == "restoring").count();
        let reason = if let Some(reason) = self.failure.lock().clone() {
            reason
        } else if self.stop.load(Ordering::Acquire) {
            "shutting down".into()
        } else if !self.globals.loaded() {
            "the broadcast tables are being read".into()
        } else if let Some(group) = self.here.iter().find(|group| !self.tasks.is_member(group)) {
            format!("no partitions of {group} are assigned yet")
        } else if waiting > 0 {
            format!("{waiting} of {} tasks are being restored", tasks.len())
        } else if tasks.len() < self.expected.len() {
            format!("{} of {} tasks are opened", tasks.len(), self.expected.len())
        } else {
            String::new()
        };
        Readiness { ready: reason.is_empty(), reason, tasks, warnings: self.warnings.all() }
    }

    fn metrics(&self) -> &prometheus::Registry {
        &self.metrics.registry
    }
}
