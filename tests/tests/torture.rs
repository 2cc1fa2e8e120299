//! Instances of a shop on a real Kafka are killed, frozen, wiped and cut off, and come to the same as `replay`.

use serde_json::json;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use tillflow_tests::{
    Api, Fault, Kafka, Proxy, Tillflow,
    cluster::Shop,
    compare::{differences, replayed},
    scratch, until,
    workload::Workload,
};

const LONG: Duration = Duration::from_secs(900);
/// Members are given up for dead after this long.
const SESSION: Duration = Duration::from_secs(6);

/// What is done to the shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Blow {
    /// SIGKILL, and start again.
    Kill(usize),
    /// SIGTERM, and start again.
    Terminate(usize),
    /// SIGSTOP for so many seconds; another takes its partitions meanwhile.
    Freeze(usize, u64),
    /// SIGKILL, and its disk is empty when it starts again.
    Wipe(usize),
    /// As [`Blow::Wipe`], and killed once more while it restores.
    KillInRestore(usize),
    /// A third instance joins for a while, and is killed.
    Join,
    /// The broker is stopped and started again.
    RestartBroker,
    /// The broker is killed and started again.
    CrashBroker,
    /// The answers to so many commits are lost.
    LoseAnswers(usize),
}

impl Blow {
    fn name(self) -> String {
        let text = format!("{self:?}");
        text.split('(').next().unwrap_or_default().to_owned()
    }
}

struct Torture {
    kafka: Kafka,
    proxy: Proxy,
    shop: Shop,
    instances: Vec<Tillflow>,
    done: BTreeMap<String, u32>,
}

impl Torture {
    /// A cluster that holds the whole workload already, so that it is taken in the order of its time.
    fn new(workload: &Workload) -> Self {
        let kafka = Kafka::start();
        let proxy = kafka.proxy();
        let shop = Shop::new(&kafka, &proxy.address());
        shop.send(&kafka, &workload.lines);
        shop.mark(&kafka, workload.end);
        let instances = ["one", "two"].map(|id| Self::instance(&shop, id)).into();
        Self { kafka, proxy, shop, instances, done: BTreeMap::new() }
    }

    fn instance(shop: &Shop, id: &str) -> Tillflow {
        shop.instance(id, 2).set("kafka.session_timeout_s", SESSION.as_secs()).spawn()
    }

    /// Until something more is committed, or a while is over: what the next blow meets is left to chance.
    fn go_on(&self, at_most: Duration) {
        let (before, started) = (self.shop.progress(&self.kafka), Instant::now());
        until("progress, or a while", LONG, || started.elapsed() > at_most || self.shop.progress(&self.kafka) > before);
    }

    fn strike(&mut self, blow: Blow) {
        *self.done.entry(blow.name()).or_default() += 1;
        match blow {
            Blow::Kill(i) => {
                self.instances[i].kill();
                self.instances[i].start_again();
            }
            Blow::Terminate(i) => {
                assert!(self.instances[i].stop().success(), "{}", self.instances[i].stderr());
                self.instances[i].start_again();
            }
            Blow::Freeze(i, seconds) => {
                self.instances[i].process().freeze();
                let until_then = Instant::now() + Duration::from_secs(seconds);
                until("it was frozen long enough", LONG, || Instant::now() > until_then);
                self.instances[i].process().thaw();
            }
            Blow::Wipe(i) => self.wipe(i),
            Blow::KillInRestore(i) => {
                self.wipe(i);
                self.go_on(Duration::from_secs(3));
                self.instances[i].kill();
                self.instances[i].start_again();
            }
            Blow::Join => {
                let mut third = Self::instance(&self.shop, "three");
                let joined = Instant::now();
                until("the third has partitions, or a while", LONG, || {
                    joined.elapsed() > 2 * SESSION || third.stderr().contains("change=Assigned([")
                });
                self.go_on(Duration::from_secs(3));
                third.kill();
            }
            Blow::RestartBroker => self.kafka.restart(),
            Blow::CrashBroker => {
                self.kafka.kill();
                self.kafka.start_again();
            }
            Blow::LoseAnswers(times) => {
                let (before, started) = (self.proxy.happened(), Instant::now());
                self.proxy.fail(Api::EndTxn, Fault::LoseResponse, times);
                until("the answers are lost, or there are no more commits", LONG, || {
                    self.proxy.happened() >= before + times as u32 || started.elapsed() > 5 * SESSION
                });
            }
        }
        for instance in &mut self.instances {
            assert!(instance.process().is_running(), "ended by {blow:?}:\n{}", instance.stderr());
        }
    }

    fn wipe(&mut self, i: usize) {
        self.instances[i].kill();
        let data = self.instances[i].files().join("tillflow-data");
        for entry in std::fs::read_dir(&data).unwrap().flatten().filter(|e| e.path().is_dir()) {
            std::fs::remove_dir_all(entry.path()).unwrap();
        }
        self.instances[i].start_again();
    }

    /// Partitions that moved to an instance while both ran.
    fn moves(&self) -> usize {
        let assigned = |line: &&str| line.contains("change=Assigned([") && !line.contains("Assigned([])");
        self.instances.iter().map(|i| i.stderr().lines().filter(assigned).count()).sum()
    }
}

/// Strikes while the workload is processed, and compares.
fn survives(workload: &Workload, blows: &[Blow]) {
    let files = std::sync::Arc::new(scratch("torture"));
    let expected = replayed(workload, &files);
    let started = Instant::now();
    let mut torture = Torture::new(workload);
    for blow in blows {
        torture.go_on(Duration::from_secs(5));
        assert!(!torture.shop.is_drained(), "all was processed before {blow:?}: this needs more records");
        eprintln!("{:6.1?} {blow:?}", started.elapsed());
        torture.strike(*blow);
    }
    let deadline = Instant::now() + LONG;
    until("everything is processed", LONG + LONG, || {
        assert!(Instant::now() < deadline, "not drained; one:\n{}\ntwo:\n{}", torture.instances[0].stderr(), torture.instances[1].stderr());
        torture.shop.is_drained()
    });
    for instance in &mut torture.instances {
        assert!(instance.stop().success(), "{}", instance.stderr());
        assert!(!instance.stderr().contains("building it anew"), "a store was wiped:\n{}", instance.stderr());
    }
    let outputs = torture.shop.outputs(&torture.kafka);
    let wrong = differences(&expected, &outputs);
    let compared: BTreeMap<_, _> = outputs.iter().map(|(topic, records)| (topic, records.len())).collect();
    let report = json!({
        "records": workload.lines.len(), "blows": torture.done, "assignments": torture.moves(),
        "answers_lost": torture.proxy.happened(), "seconds": started.elapsed().as_secs(), "outputs": compared, "differences": wrong.len(),
    });
    eprintln!("{report:#}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn ten_kills_a_long_sleep_lost_answers_and_a_broker_restart_change_nothing() {
    let Some(workload) = Workload::of("online_retail", 2_000) else {
        eprintln!("the data sets are not beside this checkout: nothing compared");
        return;
    };
    use Blow::{Freeze, Kill, KillInRestore, LoseAnswers, RestartBroker};
    let blows = [
        Kill(0),
        Kill(1),
        LoseAnswers(10),
        Kill(0),
        Freeze(1, 20),
        Kill(1),
        KillInRestore(0),
        RestartBroker,
        Kill(1),
        Kill(0),
        Kill(1),
        Kill(0),
    ];
    survives(&workload, &blows);
}

/// As many random blows as `ROUNDS` says (100), drawn from `SEED`: `make torture`.
#[test]
#[ignore = "takes as long as it is told: make torture"]
fn rounds_of_random_blows_change_nothing() {
    let number = |name: &str, default: u64| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let (rounds, mut seed) = (number("ROUNDS", 100), number("SEED", 1));
    let workload = Workload::of("online_retail", 30 * rounds as usize).expect("the data sets lie beside this checkout");
    let mut draw = |of: u64| {
        // SplitMix64, Steele et al. 2014.
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % of
    };
    let blows: Vec<_> = (0..rounds)
        .map(|_| {
            let i = draw(2) as usize;
            match draw(12) {
                0..=4 => Blow::Kill(i),
                5 => Blow::Terminate(i),
                6 => Blow::Freeze(i, SESSION.as_secs() + 3),
                7 => Blow::Wipe(i),
                8 => Blow::KillInRestore(i),
                9 => Blow::Join,
                10 => {
                    if draw(2) == 0 {
                        Blow::RestartBroker
                    } else {
                        Blow::CrashBroker
                    }
                }
                _ => Blow::LoseAnswers(5),
            }
        })
        .collect();
    survives(&workload, &blows);
}
