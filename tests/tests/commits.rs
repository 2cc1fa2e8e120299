//! When a busy worker commits, by time and by size; which offsets it tells; and that its tasks tell their watermarks together. The
//! real worker on the simulated cluster, where time passes only as this lets it.

use serde_json::{Map, json};
use std::{rc::Rc, sync::Arc, time::Duration};
use tillflow_engine::{
    EngineConfig, Following, ManualClock, SharedGlobals, Wall,
    log::{
        Reader, Start, TopicPartition,
        sim::{Data, Dice, Faults, JoinAs, Others, ProcessId, Sim, SimLog, SimReader},
    },
    metrics::Metrics,
    status::Tasks,
    wiring::wire,
    worker::{Worker, input::WATERMARK},
};
use tillflow_engine_api::{Context, Declare, Group, Output, Processor, Result};
use tillflow_schemas::{Catalog, Codec, Event, Notification, Role, Timestamp, partition::partition};

const GROUP: &str = "customers";
const BEGIN: Timestamp = Timestamp::from_millis(1_772_323_200_000);
/// Turns that the backlog takes: the cluster hands out a hundred records of an input at once.
const TURNS: usize = 20;
/// How long each turn takes, but for what the cluster itself takes.
const TURN: Duration = Duration::from_millis(10);
const NEVER: Duration = Duration::from_secs(24 * 3_600);

/// Says of each event that it was there: with each, as many bytes more wait to be committed.
struct Echo {
    out: Output<Notification>,
}

impl Processor for Echo {
    fn declare(d: &mut Declare<'_>) -> Self {
        d.input::<tillflow_schemas::UserEvent>();
        Self { out: d.output() }
    }

    fn process(&mut self, event: &Event, cx: &mut Context<'_>) -> Result<()> {
        let user_id = event.key().unwrap_or_default().into();
        cx.emit(&self.out, Notification { user_id, kind: "seen".into(), title: "seen".into(), data: Map::new(), at: cx.now() })
    }
}

/// Reads what the other says.
struct Listen;

impl Processor for Listen {
    fn declare(d: &mut Declare<'_>) -> Self {
        d.input::<Notification>();
        Self
    }

    fn process(&mut self, _: &Event, _: &mut Context<'_>) -> Result<()> {
        Ok(())
    }
}

/// Nobody else is there.
struct Alone(Sim, Arc<ManualClock>);

impl Others for Alone {
    fn run_for(&self, duration: Duration) {
        self.1.advance(duration);
        self.0.0.lock().tick();
    }
}

/// A turn of the worker over the backlog, counted from 1.
#[derive(Clone, Copy, Debug)]
struct Turn {
    number: usize,
    began: Duration,
    ended: Duration,
    committed: bool,
    /// Bytes that wait after it.
    waiting: usize,
}

/// The real worker of one group, alone on a cluster.
struct Stand {
    clock: Arc<ManualClock>,
    sim: Sim,
    catalog: Arc<Catalog>,
    codec: Arc<Codec>,
    metrics: Metrics,
    globals: SharedGlobals,
    reader: SimReader,
    following: Following,
    process: ProcessId,
    events: usize,
    worker: Worker<SimLog>,
}

impl Stand {
    /// With topics of so many partitions; the first of the groups is the worker's.
    fn new(partitions: u32, groups: &[Group], config: EngineConfig, rest: Duration) -> Self {
        let clock = ManualClock::new(BEGIN);
        let catalog = Arc::new(Catalog::built_in(partitions).unwrap());
        let config = EngineConfig { wall: Wall::Manual(clock.clone()), idle_clock: false, ..config };
        let (codec, metrics) = (Arc::new(Codec::json()), Metrics::new().unwrap());
        let wiring = wire(groups, &catalog, &codec, &config, &metrics).unwrap();
        let wired = &wiring.groups[0];
        let topics: Vec<_> = catalog.topics().iter().map(|t| (t.partitions, false)).collect();
        let (faults, members) = (Faults { rest, ..Faults::default() }, [(GROUP, partitions)]);
        let sim = Sim::new(&clock, Dice::new(1), faults, &topics, &members, false, Duration::from_secs(10));
        let process = sim.0.lock().start("machine");
        let globals = SharedGlobals::default();
        let mut reader = SimReader::new(&sim, process, 1_000, false);
        let following = globals.begin(&mut reader, &wiring.globals, &catalog).unwrap();
        let changelog = catalog.of_group(Role::Changelog, GROUP).and_then(|t| catalog.index(&t.name)).unwrap();
        let (instance, inputs, rekeyed) = ("one".to_owned(), wired.inputs.clone(), Default::default());
        let alone = Rc::new(Alone(sim.clone(), clock.clone()));
        let log = SimLog::join(&sim, alone, JoinAs { process, group: GROUP, instance, changelog, inputs, rekeyed }).unwrap();
        let worker = Worker::new(log, &wired.group, wired.inputs.clone(), partitions, &wired.shared, &globals, &Tasks::default());
        let events = wired.inputs[0];
        Self { clock, sim, catalog, codec, metrics, globals, reader, following, process, events, worker }
    }

    /// Somebody looks at a page.
    fn event(&self, partition: u32, user: &str, at: Timestamp) {
        let value = json!({"event_id": format!("{user}-{at}"), "event_type": "page_viewed", "user_id": user, "timestamp": at});
        let data = Data { logged_at: at, key: Some(user.into()), value: Some(value.to_string().into()), ..Data::default() };
        self.sim.0.lock().append(TopicPartition { topic: self.events, partition }, None, data);
    }

    fn commits(&self) -> u64 {
        self.metrics.commit_total.with_label_values(&[GROUP]).get()
    }

    fn turn(&mut self) {
        self.globals.turn(&mut self.reader, &mut self.following, &self.catalog, &self.codec).unwrap();
        self.worker.turn().unwrap();
    }
}

fn echo() -> Group {
    Group::new::<tillflow_schemas::UserEvent>(GROUP, None, &Map::new()).with::<Echo>("echo")
}

/// All turns from the first record on, one more than the backlog takes.
fn over_the_backlog(commit_interval: Duration, commit_bytes: usize, rest: Duration) -> Vec<Turn> {
    let config = EngineConfig { commit_interval, commit_bytes, ..EngineConfig::default() };
    let mut stand = Stand::new(1, &[echo()], config, rest);
    (0..100 * TURNS).for_each(|n| stand.event(0, &format!("u{n:06}"), BEGIN));
    let mut turns = Vec::new();
    for _ in 0..10_000 {
        stand.clock.advance(TURN);
        stand.sim.0.lock().tick();
        let (before, began) = (stand.commits(), stand.clock.elapsed());
        stand.turn();
        let (waiting, committed) = (stand.worker.held().1, stand.commits() > before);
        if waiting > 0 || committed || !turns.is_empty() {
            turns.push(Turn { number: turns.len() + 1, began, ended: stand.clock.elapsed(), committed, waiting });
        }
        if turns.len() > TURNS {
            return turns;
        }
    }
    panic!("the backlog is not processed: {turns:?}");
}

/// At which turns it committed.
fn commits(turns: &[Turn]) -> Vec<usize> {
    turns.iter().filter(|t| t.committed).map(|t| t.number).collect()
}

#[test]
fn with_neither_time_nor_size_reached_it_commits_with_the_turn_that_takes_the_last_record() {
    let turns = over_the_backlog(NEVER, usize::MAX, Duration::ZERO);
    assert_eq!(commits(&turns), [TURNS]);
    assert!(turns[..TURNS - 1].windows(2).all(|pair| pair[0].waiting < pair[1].waiting), "{turns:?}");
}

#[test]
fn a_busy_worker_commits_when_the_interval_is_over_and_not_before() {
    let interval = Duration::from_millis(45);
    commits_are_apart(interval, &over_the_backlog(interval, usize::MAX, Duration::ZERO));
}

#[test]
fn while_the_log_rests_a_worker_goes_on_and_commits_what_came_in_afterwards() {
    let rest = Duration::from_millis(45);
    commits_are_apart(rest, &over_the_backlog(Duration::ZERO, usize::MAX, rest));
    // Unless too much waits.
    assert_eq!(commits(&over_the_backlog(NEVER, 1, NEVER)), (1..=TURNS).collect::<Vec<_>>());
}

#[track_caller]
fn commits_are_apart(interval: Duration, turns: &[Turn]) {
    assert!(commits(turns).len() >= 4, "{turns:?}");
    let mut last = None;
    for turn in &turns[..TURNS - 1] {
        if let Some(since) = last.map(|last| turn.began - last) {
            // Taking what the log delivers takes a moment, too.
            let due = if turn.committed { since + Duration::from_millis(1) >= interval } else { since < interval };
            assert!(due, "{since:?} since the last commit: {turn:?} of {turns:?}");
        }
        last = if turn.committed { Some(turn.ended) } else { last };
    }
}

#[test]
fn a_busy_worker_commits_sooner_when_enough_bytes_wait() {
    let of_a_turn = over_the_backlog(NEVER, usize::MAX, Duration::ZERO)[0].waiting;
    let turns = over_the_backlog(NEVER, of_a_turn * 5 / 2, Duration::ZERO);
    assert_eq!(commits(&turns), [3, 6, 9, 12, 15, 18, TURNS], "{turns:?}");
    // However little may wait, each turn is committed, and whole.
    assert_eq!(commits(&over_the_backlog(NEVER, 1, Duration::ZERO)), (1..=TURNS).collect::<Vec<_>>());
}

#[test]
fn a_commit_tells_the_offsets_of_all_inputs_once_and_then_of_those_that_went_on() {
    let mut stand = Stand::new(1, &[echo()], EngineConfig::default(), Duration::ZERO);
    let mut told = vec![0];
    for n in 0..10 {
        stand.event(0, "u", BEGIN.plus(TURN * n));
        let before = stand.commits();
        while stand.commits() == before {
            stand.clock.advance(TURN);
            stand.sim.0.lock().tick();
            stand.turn();
        }
        assert_eq!(stand.commits(), before + 1);
        told.push(stand.sim.0.lock().counts["an offset committed"]);
    }
    let each: Vec<_> = told.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(each[0] > 1 && each[1..].iter().all(|n| *n == 1), "{each:?}");
}

#[test]
fn the_tasks_of_a_worker_tell_their_watermarks_in_one_commit() {
    let downstream = Group::new::<Notification>("products", Some(GROUP), &Map::new()).with::<Listen>("listen");
    let mut stand = Stand::new(2, &[echo(), downstream], EngineConfig::default(), Duration::ZERO);
    let names = ["a", "b", "c", "d", "e"];
    let users = [0, 1].map(|at| (at, *names.iter().find(|name| partition(name.as_bytes(), 2) == at).expect("a user of each task")));
    let told = TopicPartition { topic: stand.catalog.index("notifications").unwrap(), partition: 0 };
    let mut tail = SimReader::new(&stand.sim, stand.process, 1_001, false);
    tail.assign(&[(told, Start::Earliest)]).unwrap();

    // An event every 100 ms, of the tasks in turn: no commit holds events of both.
    let mut together = Vec::new();
    for n in 0..100 {
        let (partition, user) = users[n % 2];
        stand.event(partition, user, BEGIN.plus(TURN * 10 * n as u32));
        let before = stand.commits();
        while stand.commits() == before {
            stand.clock.advance(TURN);
            stand.sim.0.lock().tick();
            stand.turn();
        }
        let records = tail.poll(Duration::ZERO).unwrap();
        let watermarks = records.iter().filter(|r| r.header(WATERMARK).is_some()).count();
        together.extend(Some(watermarks).filter(|n| *n > 0));
    }
    // Each first tells that it has begun.
    let together = &together[2..];
    assert!(together.len() >= 7 && together.iter().all(|n| *n == 2), "{together:?}");
}
