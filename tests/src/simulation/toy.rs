//! A small processor in which every fault shows, and the naive model of it: it counts each user's events, holds a slot
//! for each until its timer fires, and says all it does.

use super::scenario::{Arrival, Expected, Making, Scenario};
use crate::compare::Outputs;
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tillflow_engine::log::{
    TopicPartition,
    sim::{Data, Dice},
};
use tillflow_engine_api::{Context, Declare, Error, Group, Output, Processor, Result, Timer, TimerKind};
use tillflow_schemas::{Catalog, Event, LoyaltyCommand, Notification, Timestamp, UserEvent, UserEventKind, partition::partition};
use tillflow_state::{Memory, Table};

/// Counts, slots and timers.
struct Counter {
    counts: Table<String, u64>,
    slots: Table<(String, String), u64>,
    out: Output<Notification>,
    timer: TimerKind,
}

/// How long after its event a timer fires: by the event's id.
fn delay(id: &str) -> Duration {
    let hash = id.bytes().fold(7_u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
    Duration::from_millis(200 + hash % 9_000)
}

fn said(user: &str, kind: &str, id: &str, n: Option<u64>, total: u64, at: Timestamp) -> Notification {
    let mut data = Map::new();
    data.insert("n".into(), json!(n));
    data.insert("total".into(), json!(total));
    Notification { user_id: user.into(), kind: kind.into(), title: id.into(), data, at }
}

impl Counter {
    fn count(&mut self, user: &str, id: &str, cx: &mut Context<'_>) -> Result<()> {
        let n = cx.get(&self.counts, &user.to_owned())?.unwrap_or(0) + 1;
        cx.put(&self.counts, &user.to_owned(), &n)?;
        cx.put(&self.slots, &(user.to_owned(), id.to_owned()), &n)?;
        cx.set_timer(self.timer, user, id, cx.now() + delay(id))?;
        cx.emit(&self.out, said(user, "event", id, Some(n), n, cx.now()))
    }
}

impl Processor for Counter {
    fn declare(d: &mut Declare<'_>) -> Self {
        d.input::<UserEvent>();
        d.input::<LoyaltyCommand>();
        Self { counts: d.store("toy.counts"), slots: d.store("toy.slots"), out: d.output(), timer: d.timer("toy.timer") }
    }

    fn process(&mut self, event: &Event, cx: &mut Context<'_>) -> Result<()> {
        match event {
            Event::User(UserEvent { kind: UserEventKind::PageViewed { url: Some(url) }, user_id: Some(user), session_id, .. }) => {
                self.count(user.as_str(), session_id.as_deref().unwrap_or_default(), cx)?;
                match url.as_str() {
                    "reject" => Err(Error::reject("as asked")),
                    "panic" => panic!("as asked"),
                    _ => Ok(()),
                }
            }
            Event::Command(c) => self.count(c.user_id.as_str(), &c.command_id, cx),
            _ => Ok(()),
        }
    }

    fn on_timer(&mut self, timer: &Timer, cx: &mut Context<'_>) -> Result<()> {
        let slot = (timer.key.clone(), timer.detail.clone());
        let n = cx.get(&self.slots, &slot)?;
        cx.delete(&self.slots, &slot);
        let total = cx.get(&self.counts, &timer.key)?.unwrap_or(0);
        cx.emit(&self.out, said(&timer.key, "timer", &timer.detail, n, total, cx.now()))
    }
}

/// One thing that a user did.
#[derive(Clone, Debug)]
struct Deed {
    user: String,
    id: String,
    at: Timestamp,
    poison: Option<&'static str>,
}

/// What a user's deeds come to: the whole truth in thirty lines.
fn model(deeds: &[Deed], end: Timestamp) -> (Vec<(String, Value)>, BTreeMap<String, u64>) {
    let mut out = Vec::new();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut timers: BTreeMap<String, BTreeSet<(Timestamp, String, u64)>> = BTreeMap::new();
    let mut say = |n: Notification| out.push((n.user_id.as_str().to_owned(), serde_json::to_value(n).expect("JSON")));
    let fire = |user: &str,
                until: Timestamp,
                timers: &mut BTreeMap<_, BTreeSet<(Timestamp, String, u64)>>,
                total: u64,
                say: &mut dyn FnMut(Notification)| {
        let set = timers.entry(user.to_owned()).or_default();
        while let Some(first) = set.first().filter(|t| t.0 <= until).cloned() {
            set.remove(&first);
            say(said(user, "timer", &first.1, Some(first.2), total, first.0));
        }
    };
    for deed in deeds {
        let total = counts.get(&deed.user).copied().unwrap_or(0);
        fire(&deed.user, deed.at, &mut timers, total, &mut say);
        if deed.poison.is_some() {
            continue;
        }
        let n = counts.entry(deed.user.clone()).or_default();
        *n += 1;
        timers.entry(deed.user.clone()).or_default().insert((deed.at + delay(&deed.id), deed.id.clone(), *n));
        say(said(&deed.user, "event", &deed.id, Some(*n), *n, deed.at));
    }
    for (user, n) in &counts {
        fire(user, end, &mut timers, *n, &mut say);
    }
    (out, counts)
}

/// Runs of the small processor.
pub struct Toy;

/// With one input, and nothing else that moves the clock, sequences are exact.
fn exact(outputs: Outputs) -> Outputs {
    outputs
}

fn loose(outputs: Outputs) -> Outputs {
    outputs.into_iter().map(|(topic, records)| (topic, loosened(records))).collect()
}

/// Events in their order; timers, which the clock of another input may have fired sooner, each once, whatever their place.
fn loosened(records: Vec<(String, Value)>) -> Vec<(String, Value)> {
    let (events, mut timers): (Vec<_>, Vec<_>) = records.into_iter().partition(|(_, v)| v["kind"] == "event");
    for (_, value) in &mut timers {
        value["data"]["total"] = Value::Null;
    }
    timers.sort_by_key(|(key, v)| (key.clone(), v["title"].to_string(), v["at"].to_string()));
    events.into_iter().chain(timers).collect()
}

impl Scenario for Toy {
    fn name(&self) -> &'static str {
        "toy"
    }

    fn make(&self, dice: &mut Dice, from: Timestamp) -> Making {
        let partitions = dice.between(1, 4) as u32;
        let catalog = Catalog::built_in(partitions).expect("the list of topics");
        let topic = |schema: &str| catalog.of_schema(schema).and_then(|t| catalog.index(&t.name)).expect("a topic");
        let (events, commands) = (topic("user_event"), topic("loyalty_command"));
        let (one_input, idle_clock) = (dice.one_in(2), dice.one_in(3));
        let wander = partitions > 1 && dice.one_in(2);
        let strict = one_input && !idle_clock && !wander;
        let users = dice.between(2, 12);
        let (number, pace) = (dice.between(20, 160), dice.between(50, 400));

        let mut deeds = Vec::new();
        let mut arrivals: Vec<Arrival> = Vec::new();
        let mut last: BTreeMap<TopicPartition, Duration> = BTreeMap::new();
        let mut repeats: Vec<(Duration, TopicPartition, Vec<u8>)> = Vec::new();
        let mut time = Duration::from_millis(500);
        for i in 0..number {
            time += dice.millis(0, pace * 2);
            // Idle clocks go on in pauses only; then timers fire with nothing else to do.
            if idle_clock && dice.one_in(8) {
                time += dice.millis(3_000, 12_000);
            }
            let kind = match dice.below(10) {
                0..=1 if wander => 'w',
                2..=4 if !one_input => 'c',
                _ => 'u',
            };
            let user = format!("{kind}{}", dice.below(users));
            let home = partition(user.as_bytes(), partitions);
            let to = TopicPartition {
                topic: if kind == 'c' { commands } else { events },
                partition: if kind == 'w' { (home + 1) % partitions } else { home },
            };
            let (at, id) = (from + time, format!("e{i}"));
            let poison = match dice.below(40) {
                0 if kind == 'u' => Some("panic"),
                1 if kind == 'u' => Some("reject"),
                2 if kind != 'w' => Some("broken"),
                _ => None,
            };
            // Without an id nothing but exactly once keeps it from counting twice.
            let nameless = kind != 'c' && dice.one_in(4);
            let value = match (kind, poison) {
                (_, Some("broken")) => br#"{"event_type": "#.to_vec(),
                ('c', _) => json!({"command_id": id, "user_id": user, "timestamp": at.millis(), "action": "spin", "spin_id": id})
                    .to_string()
                    .into_bytes(),
                _ => {
                    let url = poison.unwrap_or("ok");
                    let known_by = (!nameless).then_some(&id);
                    json!({"event_id": known_by, "session_id": id, "event_type": "page_viewed", "user_id": user, "timestamp": at.millis(), "url": url}).to_string().into_bytes()
                }
            };
            // In order a partition, whatever each record took on its way.
            let arrives = (time + dice.millis(0, 300)).max(last.get(&to).copied().unwrap_or_default());
            last.insert(to, arrives);
            let data = Data { logged_at: at, key: Some(user.clone().into_bytes()), value: Some(value.clone()), ..Data::default() };
            let transaction = dice.one_in(12).then(|| (dice.millis(1, 800), true));
            if dice.one_in(15) {
                let ghost = String::from_utf8_lossy(&value).replace(&format!("\"{id}\""), &format!("\"ghost-{i}\""));
                let data = Data { value: Some(ghost.into_bytes()), ..data.clone() };
                arrivals.push(Arrival { after: arrives, to, data, transaction: Some((dice.millis(1, 800), false)), poison: false });
            }
            if poison.is_none() && !nameless && dice.one_in(8) {
                repeats.push((arrives + dice.millis(0, 10_000), to, value));
            }
            arrivals.push(Arrival { after: arrives, to, data, transaction, poison: poison.is_some() });
            if poison != Some("broken") {
                deeds.push(Deed { user, id, at, poison });
            }
        }
        for (after, to, value) in repeats {
            let data = Data { logged_at: from + after, key: None, value: Some(value), ..Data::default() };
            arrivals.push(Arrival { after, to, data, transaction: None, poison: false });
        }
        arrivals.sort_by_key(|a| a.after);

        let end = from + time + Duration::from_secs(60);
        let (said, counts) = model(&deeds, end);
        let table = Table::<String, u64>::new("toy.counts");
        let state = move |tasks: &BTreeMap<u32, Memory>| {
            let mut wrong = Vec::new();
            for (user, n) in &counts {
                let home = partition(user.as_bytes(), partitions);
                let found = tasks.get(&home).and_then(|t| table.get(t, user).ok().flatten());
                if found != Some(*n) {
                    wrong.push(format!("state of {user}: expected {n}, found {found:?}"));
                }
            }
            let slots: usize =
                tasks.values().map(|t| t.rows().keys().filter(|k| k.starts_with(&tillflow_state::prefix_of("toy.slots"))).count()).sum();
            if slots > 0 {
                wrong.push(format!("{slots} slots left whose timers should have fired"));
            }
            wrong
        };
        Making {
            groups: vec![Group::new::<UserEvent>("customers", None, &Map::new()).with::<Counter>("counter")],
            catalog,
            arrivals,
            end,
            expected: Expected::Model(Outputs::from([("notifications".to_owned(), said)])),
            normal: if strict { exact } else { loose },
            idle_clock,
            wait_for_input: Some(Duration::from_secs(10)),
            fetched_at_once: 100,
            lasts: Duration::ZERO,
            long_outages: true,
            state: Box::new(state),
        }
    }
}
