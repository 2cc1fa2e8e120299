//! Instances of a shop on a real Kafka are killed, frozen, wiped and cut off, and come to the same as `replay`.

use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::process::ExitStatusExt,
    time::{Duration, Instant},
};
use tillflow_schemas::Timestamp;
use tillflow_tests::{
    Api, Fault, Kafka, Proxy, Redis, Smtp, Tillflow,
    cluster::{PARTITIONS, Shop},
    compare::{differences, replayed_on},
    scratch, until,
    workload::{Line, Workload},
};

const LONG: Duration = Duration::from_secs(900);
/// Members are given up for dead after this long.
const SESSION: Duration = Duration::from_secs(6);
/// Longer than a session, and than a transaction may be open.
const OUTAGE: Duration = Duration::from_secs(15);
/// After so many seconds of sleep another has taken over, however busy the machine is.
const LONG_SLEEP: u64 = 30;
/// The instances, of which as many take part as a test says.
const NAMES: [&str; 3] = ["one", "two", "three"];
/// Signals that end a process which its own code crashed.
const SEGMENTATION_FAULT: i32 = 11;
const ABORT: i32 = 6;
/// What an instance says when it begins.
const BEGINS: &str = "tillflow::running: listening";
/// What an instance says when it begins to restore.
const RESTORES: &str = "worker::restore: restoring";

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
    /// One more instance joins for a while, and is killed.
    Join,
    /// The broker is stopped and started again, once what it holds is processed: one without replicas does not end what is
    /// open then in all its partitions (docs/decisions/hanging-transactions.md).
    RestartBroker,
    /// The broker is out of reach for a while, whatever is under way.
    LoseBroker,
    /// The answers to so many commits are lost.
    LoseAnswers(usize),
    /// Redis dies, and comes back empty.
    LoseRedis,
    /// The mail server is gone for a while.
    LoseMailServer,
}

impl Blow {
    fn name(self) -> String {
        let text = format!("{self:?}");
        text.split('(').next().unwrap_or_default().to_owned()
    }
}

struct Torture<'a> {
    kafka: Kafka,
    proxy: Proxy,
    redis: Redis,
    mail_server: Smtp,
    shop: Shop,
    instances: Vec<Tillflow>,
    /// Records that are not sent yet, in the order of their time.
    rest: &'a [Line],
    /// How many are sent at once.
    portion: usize,
    end: Timestamp,
    done: BTreeMap<String, u32>,
    /// Kills in all.
    kills: u32,
    /// Late commits that were refused.
    refused: u32,
    /// Ends of instances that were their Kafka client's doing.
    client_crashes: u32,
    /// When each instance's disk was emptied.
    wiped: Vec<(usize, Timestamp)>,
}

impl<'a> Torture<'a> {
    /// A cluster that holds a part of the workload. The next one comes when all is processed, while nothing runs: so the
    /// input is taken in the order of its time, and no blow comes too late.
    fn new(workload: &'a Workload, portions: usize, instances: usize) -> Self {
        let (kafka, redis, mail_server) = (Kafka::start(), Redis::start(), Smtp::start());
        let proxy = kafka.proxy();
        // Two workers each, and for every one of them tasks in both groups.
        let shop = Shop::with_partitions(&kafka, &proxy.address(), partitions(instances));
        let portion = workload.lines.len().div_ceil(portions);
        let (rest, end) = (workload.lines.as_slice(), workload.end);
        let mut torture = Self {
            kafka,
            proxy,
            redis,
            mail_server,
            shop,
            instances: Vec::new(),
            rest,
            portion,
            end,
            done: BTreeMap::new(),
            kills: 0,
            refused: 0,
            client_crashes: 0,
            wiped: Vec::new(),
        };
        torture.feed(torture.portion);
        torture.instances = NAMES.iter().take(instances).map(|id| torture.instance(id)).collect();
        torture
    }

    fn instance(&self, id: &str) -> Tillflow {
        let shop = self.shop.instance(id, 2).set("kafka.session_timeout_s", SESSION.as_secs()).set("redis.url", self.redis.url());
        shop.set("email.sender.from", "Tea Shop <hello@shop.example>")
            .set("email.sender.postal_address", "1 Harbour Street, Leith")
            .set("email.sender.unsubscribe_url", "https://shop.example/unsubscribe")
            .set("email.sender.secret", "secret")
            .set("email.smtp.host", "127.0.0.1")
            .set("email.smtp.port", self.mail_server.port())
            .set("email.smtp.tls", "none")
            .spawn()
    }

    /// Sends records, and with the last ones the mark of the end.
    fn feed(&mut self, records: usize) {
        let mut at = records.min(self.rest.len());
        // What has one time comes together.
        while at > 0 && self.rest.get(at).is_some_and(|next| next.at == self.rest[at - 1].at) {
            at += 1;
        }
        let (now, rest) = self.rest.split_at(at);
        self.shop.send(&self.kafka, now);
        self.rest = rest;
        if rest.is_empty() {
            self.shop.mark(&self.kafka, self.end);
        }
    }

    fn feed_while_all_are_dead(&mut self, records: usize) {
        for instance in &mut self.instances {
            instance.kill();
        }
        self.kills += self.instances.len() as u32;
        self.feed(records);
        self.instances.iter_mut().for_each(Tillflow::start_again);
    }

    /// Until something more is committed, or a while is over: what the next blow meets is left to chance.
    fn go_on(&self, at_most: Duration) {
        let (before, started) = (self.shop.progress(&self.kafka), Instant::now());
        until("progress, or a while", LONG, || started.elapsed() > at_most || self.shop.progress(&self.kafka) > before);
    }

    fn strike(&mut self, blow: Blow) {
        *self.done.entry(blow.name()).or_default() += 1;
        match blow {
            Blow::Kill(i) => self.kill(i),
            Blow::Terminate(i) => {
                assert!(self.instances[i].stop().success(), "{}", self.instances[i].stderr());
                self.instances[i].start_again();
            }
            Blow::Freeze(i, seconds) => self.freeze(i, seconds),
            Blow::Wipe(i) => self.wipe(i),
            Blow::KillInRestore(i) => {
                self.wipe(i);
                let restores = |t: &Self| t.instances[i].stderr().lines().filter(|l| l.contains(RESTORES)).count();
                let before = restores(self);
                until("it restores", LONG, || restores(self) > before);
                self.kill(i);
            }
            Blow::Join => {
                let mut guest = self.instance("guest");
                let joined = Instant::now();
                until("the guest has partitions, or a while", LONG, || {
                    joined.elapsed() > 2 * SESSION || guest.stderr().contains("change=Assigned([")
                });
                self.go_on(Duration::from_secs(3));
                guest.kill();
                self.kills += 1;
            }
            Blow::RestartBroker => {
                self.drain();
                self.kafka.restart();
            }
            Blow::LoseBroker => {
                self.proxy.go_down();
                // Nothing but time tells that sessions are over.
                std::thread::sleep(OUTAGE);
                self.proxy.come_up();
            }
            Blow::LoseAnswers(times) => {
                let (before, started) = (self.proxy.happened(), Instant::now());
                self.proxy.fail(Api::EndTxn, Fault::LoseResponse, times);
                until("the answers are lost, or there are no more commits", LONG, || {
                    self.proxy.happened() >= before + times as u32 || started.elapsed() > 5 * SESSION
                });
            }
            Blow::LoseRedis => {
                self.redis.kill();
                self.go_on(SESSION);
                self.redis.start_again();
            }
            Blow::LoseMailServer => {
                self.mail_server.go_down();
                self.go_on(SESSION);
                self.mail_server.come_up();
            }
        }
        self.revive();
    }

    /// Until all that was sent is processed.
    fn drain(&mut self) {
        let deadline = Instant::now() + LONG;
        until("everything is processed", LONG + LONG, || {
            let logs = || self.instances.iter().map(Tillflow::stderr).collect::<Vec<_>>().join("\n\n");
            assert!(Instant::now() < deadline, "not drained; the instances say:\n{}", logs());
            self.revive();
            self.shop.is_drained()
        });
    }

    /// Starts instances again that their Kafka client crashed, or that ended since it no longer hears its brokers: librdkafka
    /// takes memory for metadata that no answer filled, of a broker that has just come back and knows no leader yet (its issue
    /// 5280; it says so by partitions that there can't be). Any other end is a fault of ours.
    fn revive(&mut self) {
        for instance in &mut self.instances {
            if instance.process().is_running() {
                continue;
            }
            let ended = instance.process().wait(LONG);
            let said = instance.stderr();
            let last_life = said.rsplit(BEGINS).next().unwrap_or_default();
            let garbled = || last_life.lines().any(|line| names_no_partition(line, partitions(NAMES.len())));
            let by_client = matches!(ended.signal(), Some(SEGMENTATION_FAULT | ABORT)) || garbled();
            assert!(by_client, "ended, {ended}:\n{said}");
            self.client_crashes += 1;
            instance.start_again();
        }
    }

    fn kill(&mut self, i: usize) {
        self.instances[i].kill();
        self.kills += 1;
        self.instances[i].start_again();
    }

    /// Falls asleep with its request to commit on the way, unless it has nothing to commit. Another takes over; then the
    /// request arrives.
    fn freeze(&mut self, i: usize, seconds: u64) {
        self.proxy.hold(Api::EndTxn, &format!(".{}-", NAMES[i]));
        let holds_within = |t: &Self, limit| {
            let asked = Instant::now();
            until("it commits, or a while", LONG, || t.proxy.holds() || asked.elapsed() > limit);
            t.proxy.holds()
        };
        if !holds_within(self, SESSION) && self.shop.is_drained() && !self.rest.is_empty() {
            self.feed_while_all_are_dead(self.portion);
            holds_within(self, 2 * SESSION);
        }
        self.instances[i].process().freeze();
        let held = self.proxy.holds();
        let until_then = Instant::now() + Duration::from_secs(seconds);
        until("it was frozen long enough", LONG, || Instant::now() > until_then);
        self.proxy.release();
        if held {
            until("the late commit is answered", LONG, || self.proxy.answered().is_some());
            // After a sleep little longer than a session another may not have taken over yet; then it may still commit.
            let refused = self.proxy.refused_late();
            assert!(refused || seconds < LONG_SLEEP, "a late commit was answered with {:?}", self.proxy.answered());
            self.refused += u32::from(refused);
        }
        self.instances[i].process().thaw();
    }

    fn wipe(&mut self, i: usize) {
        self.instances[i].kill();
        self.kills += 1;
        self.wiped.push((i, Timestamp::wall()));
        let data = self.instances[i].files().join("tillflow-data");
        for entry in std::fs::read_dir(&data).unwrap().flatten().filter(|e| e.path().is_dir()) {
            std::fs::remove_dir_all(entry.path()).unwrap();
        }
        self.instances[i].start_again();
    }

    /// How often a partition went from one instance to another.
    fn moves(&self) -> usize {
        let logs = self.instances.iter().enumerate().flat_map(|(i, instance)| logged(&instance.stderr(), "membership", i));
        let mut assigned: Vec<_> = logs.filter(|l| l.text.contains("change=Assigned([")).collect();
        assigned.sort_by_key(|l| l.at);
        let (mut owners, mut moves) = (BTreeMap::new(), 0);
        for line in assigned {
            let partitions = line.text.split(['[', ']']).nth(1).unwrap_or_default().to_owned();
            for partition in partitions.split(", ").filter(|p| !p.is_empty()) {
                let place = (line.field("group"), partition.to_owned());
                moves += usize::from(owners.insert(place, line.instance).is_some_and(|before| before != line.instance));
            }
        }
        moves
    }

    /// What restores read that they need not have: a store that stood somewhere is never behind that again, unless its
    /// disk was lost.
    fn needless_restores(&self) -> Vec<String> {
        let mut needless = Vec::new();
        for (i, instance) in self.instances.iter().enumerate() {
            let mut stood: BTreeMap<(String, String), (i64, Timestamp)> = BTreeMap::new();
            for line in logged(&instance.stderr(), RESTORES, i) {
                let number = |name: &str| line.field(name).parse::<i64>().expect("an offset");
                let place = (line.field("group"), line.field("partition"));
                let lost = |since: Timestamp| self.wiped.iter().any(|(w, at)| *w == i && since <= *at && *at <= line.at);
                if let Some((before, since)) = stood.insert(place, (number("from"), line.at))
                    && number("from") < before
                    && !lost(since)
                {
                    needless.push(format!("{} stood at {before} before: {}", NAMES[i], line.text));
                }
            }
        }
        needless
    }
}

/// A line of an instance's log.
struct Logged {
    instance: usize,
    at: Timestamp,
    text: String,
}

impl Logged {
    /// The value of `name=value`.
    fn field(&self, name: &str) -> String {
        let start = self.text.split(&format!(" {name}=")).nth(1).unwrap_or_default();
        start.split_whitespace().next().unwrap_or_default().trim_matches('"').to_owned()
    }
}

fn logged(log: &str, what: &str, instance: usize) -> Vec<Logged> {
    let lines = log.lines().filter(|l| l.contains(what));
    lines.filter_map(|l| Some(Logged { instance, at: Timestamp::parse(l.split_whitespace().next()?).ok()?, text: l.to_owned() })).collect()
}

/// Whether librdkafka says that it was told of a partition that no topic of so many can have.
fn names_no_partition(line: &str, partitions: u32) -> bool {
    let named = line.split_once("METADATAUPDATE").and_then(|(_, told)| told.split_once(")[")?.1.split_once(']'));
    named.and_then(|(number, _)| number.parse::<i64>().ok()).is_some_and(|number| !(0..i64::from(partitions)).contains(&number))
}

/// Enough for every worker of so many instances to have several.
fn partitions(instances: usize) -> u32 {
    if instances > 2 { 12 } else { PARTITIONS }
}

/// Strikes at so many instances while the workload is processed, and compares.
fn survives(workload: &Workload, instances: usize, blows: &[Blow]) -> Report {
    let files = std::sync::Arc::new(scratch("torture"));
    let expected = replayed_on(partitions(instances), workload, &files);
    let started = Instant::now();
    let mut torture = Torture::new(workload, blows.len() + 1, instances);
    for blow in blows {
        torture.go_on(Duration::from_secs(5));
        if torture.shop.is_drained() {
            assert!(!torture.rest.is_empty(), "all was processed before {blow:?}: this needs more records");
            torture.feed_while_all_are_dead(torture.portion);
        }
        eprintln!("{:6.1?} {blow:?}, {} records to be sent", started.elapsed(), torture.rest.len());
        torture.strike(*blow);
    }
    if !torture.rest.is_empty() {
        torture.feed_while_all_are_dead(usize::MAX);
    }
    torture.drain();
    for instance in &mut torture.instances {
        assert!(instance.stop().success(), "{}", instance.stderr());
        let said = instance.stderr();
        assert!(!said.contains("building the store anew"), "a store was wiped:\n{said}");
        // Who is told that its membership is over knows that nothing was committed, once it has aborted; a broker that is
        // out of reach does not answer that.
        let over = |l: &&str| (l.contains("Unknown member") || l.contains("generation id is not valid")) && !l.contains("; aborting it: ");
        let refused = said.lines().filter(|l| l.contains("outcome of the transaction unknown")).find(over);
        assert_eq!(refused, None, "a refusal was taken for an unknown outcome");
    }
    let needless = torture.needless_restores();
    assert!(needless.is_empty(), "{}", needless.join("\n"));
    let outputs = torture.shop.outputs(&torture.kafka);
    let wrong = differences(&expected, &outputs);
    let compared: BTreeMap<_, _> = outputs.iter().map(|(topic, records)| (topic, records.len())).collect();
    let report = Report { kills: torture.kills, moves: torture.moves(), answers_lost: torture.proxy.happened(), refused: torture.refused };
    let mails: Vec<_> = torture.mail_server.mails().iter().map(|mail| mail.header("Message-ID").expect("an id")).collect();
    let told = json!({
        "records": workload.lines.len(), "instances": instances, "mails": mails.len(), "blows": torture.done, "kills": report.kills, "late_commits_refused": report.refused, "moves": report.moves,
        "answers_lost": report.answers_lost, "crashes_of_the_kafka_client": torture.client_crashes, "seconds": started.elapsed().as_secs(), "outputs": compared, "differences": wrong.len(),
    });
    eprintln!("{told:#}");
    // Where the broker has not ended transactions everywhere, that may be why.
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), torture.kafka.skipped_markers().join("\n"));
    assert_eq!(mails.iter().collect::<BTreeSet<_>>().len(), mails.len(), "a mail went out twice: {mails:?}");
    report
}

/// What was done to a shop that survived it.
#[derive(Debug)]
struct Report {
    kills: u32,
    moves: usize,
    answers_lost: u32,
    refused: u32,
}

/// So many orders of a real shop with all that is derived from them; where its data is not there, about as many records of a
/// made-up one.
fn workload(orders: usize) -> Workload {
    Workload::of("online_retail", orders).unwrap_or_else(|| Workload::made_up(11, 10 * orders))
}

#[test]
fn ten_kills_a_long_sleep_lost_answers_and_a_broker_restart_change_nothing() {
    let workload = workload(2_000);
    use Blow::{Freeze, Kill, KillInRestore, LoseAnswers, LoseMailServer, LoseRedis, RestartBroker};
    let blows = [
        Kill(0),
        Kill(1),
        Freeze(1, 60),
        LoseAnswers(10),
        Kill(0),
        KillInRestore(0),
        Kill(1),
        RestartBroker,
        LoseRedis,
        Kill(1),
        // Who has nothing to commit when it falls asleep has no late commit: so another one sleeps, too.
        Freeze(0, 60),
        LoseMailServer,
        Kill(0),
        Kill(1),
        Kill(0),
    ];
    let report = survives(&workload, 2, &blows);
    let enough = report.kills >= 10 && report.moves >= 5 && report.answers_lost >= 10 && report.refused >= 1;
    assert!(enough, "too little was done to it: {report:?}");
}

/// As many random blows as `ROUNDS` says (100), drawn from `SEED`: `make torture`.
#[test]
#[ignore = "takes as long as it is told: make torture"]
fn rounds_of_random_blows_change_nothing() {
    let number = |name: &str, default: u64| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let (rounds, mut seed) = (number("ROUNDS", 100), number("SEED", 1));
    let workload = workload(30 * rounds as usize);
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
            let i = draw(NAMES.len() as u64) as usize;
            match draw(15) {
                0..=4 => Blow::Kill(i),
                5 => Blow::Terminate(i),
                6 => Blow::Freeze(i, SESSION.as_secs() + 3),
                7 => Blow::Wipe(i),
                8 => Blow::KillInRestore(i),
                9 => Blow::Join,
                10 => Blow::RestartBroker,
                11 => Blow::LoseBroker,
                12 => Blow::LoseRedis,
                13 => Blow::LoseMailServer,
                _ => Blow::LoseAnswers(5),
            }
        })
        .collect();
    let _ = survives(&workload, NAMES.len(), &blows);
}

#[test]
fn a_partition_that_there_cant_be_is_told_from_one_without_a_leader() {
    let told = |of: &str| {
        format!(
            "WARN librdkafka: librdkafka: METADATAUPDATE [thrd:main]: Partition t-4-6.segments(BA4/YW24Qk2xrsCuRmkz6A){of} not found in cache"
        )
    };
    assert!(names_no_partition(&told("[-56576]: new leader-1"), 12));
    assert!(names_no_partition(&told("[12]:"), 12));
    assert!(!names_no_partition(&told("[11]: new leader-1"), 12), "a broker that comes back has no leader for a moment");
    assert!(!names_no_partition("WARN librdkafka: FAIL [thrd:main]: Partition t(x)[-1]", 12));
}
