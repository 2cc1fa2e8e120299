//! What the console shows, gathered once for all its pages: the last decisions of each kind, and how many a second.

use super::view;
use crate::App;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tillflow_engine::port::Committed;
use tokio::{
    sync::broadcast::{self, Receiver, error::RecvError},
    time::{Instant, MissedTickBehavior, interval},
};

/// How many of each kind are remembered, and how many the page shows.
const REMEMBERED: usize = 12;

/// Seconds of rates that are remembered.
const SECONDS: usize = 120;

/// Ticks a page may fall behind before it gets a new picture.
const BEHIND: usize = 8;

/// The engine's counter of processed records, and the label whose value is the group of what shoppers do.
const PROCESSED: (&str, &str, &str) = ("tillflow_process_total", "group", "customers");

/// What the console shows.
pub(crate) struct Feed {
    state: Mutex<State>,
    ticks: broadcast::Sender<Arc<str>>,
}

#[derive(Default)]
struct State {
    /// The last of each kind and their numbers, newest last.
    last: BTreeMap<&'static str, VecDeque<(u64, Arc<Committed>)>>,
    /// How many of each kind came since the last tick.
    new: BTreeMap<&'static str, usize>,
    /// Decisions since the start, by topic.
    totals: BTreeMap<String, u64>,
    /// Decisions since the start.
    decisions: u64,
    /// Events and decisions of each second, newest last.
    rates: VecDeque<[f64; 2]>,
}

impl Feed {
    pub fn new() -> Self {
        Self { state: Mutex::default(), ticks: broadcast::channel(BEHIND).0 }
    }

    pub fn follow(&self) -> Receiver<Arc<str>> {
        self.ticks.subscribe()
    }

    fn take(&self, record: &Arc<Committed>) {
        let mut state = self.state.lock();
        state.decisions += 1;
        let number = state.decisions;
        match state.totals.get_mut(&record.topic) {
            Some(total) => *total += 1,
            None => drop(state.totals.insert(record.topic.clone(), 1)),
        }
        let Some(kind) = view::kind(&record.schema) else { return };
        let last = state.last.entry(kind).or_default();
        if last.len() == REMEMBERED {
            last.pop_front();
        }
        last.push_back((number, record.clone()));
        *state.new.entry(kind).or_default() += 1;
    }

    /// All that is remembered.
    pub fn picture(&self, app: &App) -> String {
        let mut picture = situation(app);
        let state = self.state.lock();
        let lists: Map<String, Value> = state.last.iter().map(|(kind, last)| ((*kind).to_owned(), newest(last, last.len()))).collect();
        picture.insert("lists".into(), lists.into());
        picture.insert("rates".into(), json!(state.rates));
        picture.insert("totals".into(), json!(state.totals));
        Value::Object(picture).to_string()
    }

    /// Ends a second: what is new goes to the pages.
    fn tick(&self, app: &App, rates: [f64; 2]) {
        let mut state = self.state.lock();
        if state.rates.len() == SECONDS {
            state.rates.pop_front();
        }
        state.rates.push_back(rates);
        let new = std::mem::take(&mut state.new);
        if self.ticks.receiver_count() == 0 {
            return;
        }
        let lists: Map<String, Value> =
            new.into_iter().filter_map(|(kind, n)| Some((kind.to_owned(), newest(state.last.get(kind)?, n)))).collect();
        let totals = json!(state.totals);
        drop(state);
        let mut tick = situation(app);
        tick.insert("lists".into(), lists.into());
        tick.insert("rates".into(), json!([rates]));
        tick.insert("totals".into(), totals);
        // No page is no error.
        let _ = self.ticks.send(Value::Object(tick).to_string().into());
    }
}

/// The newest `n`, newest first. Each carries its number: a page whose picture was taken within a second knows by it
/// what it has of that second's tick.
fn newest(last: &VecDeque<(u64, Arc<Committed>)>, n: usize) -> Value {
    let numbered = |(number, record): &(u64, Arc<Committed>)| {
        let mut shown = view::of(record);
        if let Value::Object(fields) = &mut shown {
            fields.insert("n".into(), json!(number));
        }
        shown
    };
    last.iter().rev().take(n).map(numbered).collect()
}

/// How the instance is.
fn situation(app: &App) -> Map<String, Value> {
    let readiness = app.shop.readiness();
    let fields = json!({ "ready": readiness.ready, "reason": readiness.reason, "tasks": readiness.tasks, "warnings": readiness.warnings });
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// Follows the outputs until the gateway stops.
pub(crate) async fn gather(app: Arc<App>, mut outputs: Receiver<Arc<Committed>>) {
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    seconds.tick().await;
    let mut before = Reading::of(&app);
    loop {
        tokio::select! {
            () = app.stop.cancelled() => return,
            _ = seconds.tick() => {
                let now = Reading::of(&app);
                app.feed.tick(&app, now.since(&before));
                before = now;
            }
            received = outputs.recv() => match received {
                Ok(record) => app.feed.take(&record),
                // The count stays true; what they were is nothing to a page that shows the last few.
                Err(RecvError::Lagged(missed)) => app.feed.state.lock().decisions += missed,
                Err(RecvError::Closed) => return,
            },
        }
    }
}

/// The counters at a moment.
struct Reading {
    at: Instant,
    events: f64,
    decisions: u64,
}

impl Reading {
    fn of(app: &App) -> Self {
        Self { at: Instant::now(), events: events(app), decisions: app.feed.state.lock().decisions }
    }

    fn since(&self, before: &Self) -> [f64; 2] {
        let seconds = self.at.duration_since(before.at).as_secs_f64().max(0.001);
        let rate = |n: f64| (n.max(0.0) / seconds * 10.0).round() / 10.0;
        [rate(self.events - before.events), rate(self.decisions.saturating_sub(before.decisions) as f64)]
    }
}

/// Events so far: processed ones, whoever sent them; where the engine does not count, those that came in here.
fn events(app: &App) -> f64 {
    let (name, label, group) = PROCESSED;
    let families = app.shop.metrics().gather();
    let Some(family) = families.iter().find(|f| f.name() == name) else { return app.metrics.events() as f64 };
    let of_group = family.get_metric().iter().filter(|m| m.get_label().iter().any(|l| l.name() == label && l.value() == group));
    of_group.map(|m| m.get_counter().get_value()).sum()
}
