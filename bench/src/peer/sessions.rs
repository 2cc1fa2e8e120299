//! The customers' side of co-occurrence and demand: a user's last distinct products, and what they say to each
//! products task.

use super::{
    bytes::{Reader, put_number, put_text},
    names::Names,
    parcel::{Bundle, Demand},
};
use bytes::Bytes;
use parking_lot::RwLock;
use smallvec::SmallVec;
use std::sync::Arc;
use tillflow_engine_api::{Combined, Context, Declare, Error, Processor, Result};
use tillflow_schemas::{Event, Order, ProductId, UserEvent, UserEventKind, UserId};
use tillflow_state::Table;

/// Distinct products of a user that are kept.
pub const KEPT: usize = 10;
/// For how long, in milliseconds of event time.
pub const KEPT_MS: i64 = 30 * 60_000;

/// Weights of demand.
pub const VIEW: f64 = 1.0;
/// Weights of demand.
pub const ADD: f64 = 3.0;
/// Weights of demand.
pub const ORDER: f64 = 10.0;

/// The processor.
pub struct Sessions {
    /// The products of each user, the latest first, each with its time.
    sessions: Table<UserId, Bytes>,
    parcels: Combined<Bundle>,
    /// Only what texts are called here: nothing of it needs to be undone.
    names: Arc<RwLock<Names>>,
    outgoing: Vec<Option<Bundle>>,
}

impl Processor for Sessions {
    fn declare(d: &mut Declare<'_>) -> Self {
        d.input::<UserEvent>();
        let names = Arc::new(RwLock::new(Names::new(1)));
        Self { sessions: d.store("peer.sessions"), parcels: d.combined(), names, outgoing: Vec::new() }
    }

    fn process(&mut self, event: &Event, cx: &mut Context<'_>) -> Result<()> {
        let Event::User(UserEvent { kind, user_id: Some(user_id), timestamp, .. }) = event else { return Ok(()) };
        let at = timestamp.millis();
        self.prepare(cx.place().partitions);
        let shared = self.names.clone();
        let mut names = shared.write();
        match kind {
            UserEventKind::ProductViewed { product_id, .. } => self.seen(user_id, product_id, VIEW, at, &mut names, cx)?,
            UserEventKind::AddedToCart { product_id, .. } => self.seen(user_id, product_id, ADD, at, &mut names, cx)?,
            UserEventKind::OrderCompleted(order) => self.ordered(order, at, &mut names),
            _ => {}
        }
        for bundle in self.outgoing.iter_mut().filter_map(Option::take) {
            cx.combine(&self.parcels, bundle);
        }
        Ok(())
    }
}

impl Sessions {
    fn prepare(&mut self, partitions: u32) {
        if self.outgoing.len() != partitions as usize {
            self.names = Arc::new(RwLock::new(Names::new(partitions)));
            self.outgoing = (0..partitions).map(|_| None).collect();
        }
        // What a failed record left.
        self.outgoing.iter_mut().for_each(|o| *o = None);
    }

    fn seen(&mut self, user: &UserId, product: &ProductId, weight: f64, at: i64, names: &mut Names, cx: &mut Context<'_>) -> Result<()> {
        let (product, _) = names.number(product.as_str());
        self.demand(product, weight, at, names);
        let row = cx.get(&self.sessions, user)?.unwrap_or_default();
        let mut kept = read(&row, names).ok_or_else(|| Error::reject("a session that can't be read"))?;
        kept.retain(|(_, seen)| at - seen <= KEPT_MS);
        match kept.iter().position(|(other, _)| *other == product) {
            Some(known) => drop(kept.remove(known)),
            None => {
                kept.truncate(KEPT - 1);
                self.meet(product, kept.iter().map(|(other, _)| *other), names);
            }
        }
        kept.insert(0, (product, at));
        cx.put(&self.sessions, user, &write(&kept, names))
    }

    fn ordered(&mut self, order: &Order, at: i64, names: &mut Names) {
        let mut items: Vec<u32> = Vec::new();
        for item in &order.items {
            let (product, _) = names.number(item.product_id.as_str());
            self.demand(product, ORDER, at, names);
            if !items.contains(&product) {
                self.meet(product, items.iter().copied(), names);
                items.push(product);
            }
        }
    }

    fn demand(&mut self, product: u32, score: f64, at: i64, names: &Names) {
        if let Some(bundle) = self.to(names.partition(product)) {
            bundle.demands.push(Demand { product, score, at });
        }
    }

    /// Tells each partition what counts there: all of the meeting where the product lies, elsewhere the others that do.
    fn meet(&mut self, product: u32, others: impl Iterator<Item = u32> + Clone, names: &Names) {
        let home = names.partition(product);
        for to in 0..self.outgoing.len() as u32 {
            let there = others.clone().filter(|other| to == home || names.partition(*other) == to);
            let count = there.clone().count();
            if count > 0
                && let Some(bundle) = self.to(to)
            {
                bundle.meetings.extend([product, count as u32]);
                bundle.meetings.extend(there);
            }
        }
    }

    fn to(&mut self, to: u32) -> Option<&mut Bundle> {
        let (partitions, names) = (self.outgoing.len() as u32, &self.names);
        let slot = self.outgoing.get_mut(to as usize)?;
        Some(slot.get_or_insert_with(|| Bundle {
            to,
            partitions,
            names: names.clone(),
            demands: SmallVec::new(),
            meetings: SmallVec::new(),
        }))
    }
}

fn read(row: &[u8], names: &mut Names) -> Option<Vec<(u32, i64)>> {
    let (mut reader, mut kept) = (Reader(row), Vec::with_capacity(KEPT + 1));
    let mut at = 0;
    while !reader.is_empty() {
        let (product, _) = names.number(reader.text()?);
        let number = reader.number()? as i64;
        // The first is a time, the others say how much earlier they were.
        at = if kept.is_empty() { number } else { at - number };
        kept.push((product, at));
    }
    Some(kept)
}

fn write(kept: &[(u32, i64)], names: &Names) -> Bytes {
    let mut row = Vec::with_capacity(kept.len() * 10);
    let mut before = None;
    for (product, at) in kept {
        put_text(names.as_str(*product), &mut row);
        put_number(before.map_or(*at, |b: i64| b - at) as u64, &mut row);
        before = Some(*at);
    }
    row.into()
}
