//! The customers' side of demand: counts what shoppers do by product and bucket, and sends the sums to the products'
//! tasks. The bucket is decided here, so that it never depends on how far another task has read.

use super::{BUCKET, Bucket, Counts, Place, WINDOW};
use crate::shopper::{CARTS, Cart, EarlyRefunds, ITEMS_KEPT, LATE_ORDERS, ORDERS, PlacedOrder};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};
use tillflow_engine_api::{Combine, Combined, Context, Declare, Processor, Result, Timer, TimerKind};
use tillflow_schemas::{DemandSignal, Event, Item, Money, OrderId, ProductId, Refund, Timestamp, UserEvent, UserEventKind, UserId};
use tillflow_state::Table;

/// Of one user and product, one view counts in so much time, from the one that counted.
const ONE_VIEW_IN: Duration = Duration::from_secs(30 * 60);
/// A view this long counts half as much again.
const LONG_VIEW_MS: u64 = 30_000;

/// Counts for one product at one place, merged within a commit.
struct Signal {
    product: ProductId,
    place: Place,
    counts: Counts,
}

impl Combine for Signal {
    type Out = DemandSignal;

    fn slot(&self) -> String {
        format!("{}\0{}", self.product, self.place.stamp().millis())
    }
    fn absorb(&mut self, other: Self) {
        self.counts += other.counts;
    }
    fn finish(self) -> DemandSignal {
        let Counts { views, long_views, adds, checkouts, orders, units } = self.counts;
        DemandSignal { product_id: self.product, bucket: self.place.stamp(), views, long_views, adds, checkouts, orders, units }
    }
}

/// What of an order has been taken back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct TakenBack {
    /// Pieces by product.
    units: BTreeMap<ProductId, i64>,
    /// Sum of the amounts refunded without naming items.
    amount: Money,
}

/// Counts demand.
pub struct DemandSignals {
    carts: Table<UserId, Cart>,
    orders: Table<(UserId, OrderId), PlacedOrder>,
    late_orders: Table<(UserId, OrderId), Timestamp>,
    early: EarlyRefunds,
    views: Table<(UserId, ProductId), Timestamp>,
    taken_back: Table<(UserId, OrderId), TakenBack>,
    signals: Combined<Signal>,
    forget_views: TimerKind,
    forget_order: TimerKind,
}

impl Processor for DemandSignals {
    fn declare(d: &mut Declare<'_>) -> Self {
        d.input::<UserEvent>();
        Self {
            carts: d.read(CARTS),
            orders: d.read(ORDERS),
            late_orders: d.read(LATE_ORDERS),
            early: EarlyRefunds::read(d),
            views: d.store("pricing.views"),
            taken_back: d.store("pricing.taken_back"),
            signals: d.combined(),
            forget_views: d.timer("pricing.forget_views"),
            forget_order: d.timer("pricing.forget_order"),
        }
    }

    fn process(&mut self, event: &Event, cx: &mut Context<'_>) -> Result<()> {
        let Event::User(event) = event else { return Ok(()) };
        match &event.kind {
            UserEventKind::ProductViewed { product_id, dwell_ms } => {
                let views = i64::from(self.is_new_view(event.who(), product_id, cx)?);
                let long_views = if dwell_ms.is_some_and(|ms| ms >= LONG_VIEW_MS) { views } else { 0 };
                self.count(product_id, Counts { views, long_views, ..Counts::default() }, cx);
            }
            UserEventKind::AddedToCart { product_id, .. } => self.count(product_id, Counts { adds: 1, ..Counts::default() }, cx),
            UserEventKind::CheckoutStarted { .. } => {
                let Some(who) = event.who() else { return Ok(()) };
                for product in cx.get(&self.carts, who)?.unwrap_or_default().items.keys() {
                    self.count(product, Counts { checkouts: 1, ..Counts::default() }, cx);
                }
            }
            UserEventKind::OrderCompleted(order) => {
                for (product, units) in pieces(order.items.iter().take(ITEMS_KEPT)) {
                    self.count(product, Counts { orders: 1, units, ..Counts::default() }, cx);
                }
                let Some(who) = event.who() else { return Ok(()) };
                for early in self.early.of(who, &order.order_id, cx)? {
                    self.take_back(who, &order.order_id, early.refund.as_ref(), early.at, cx)?;
                }
            }
            UserEventKind::OrderRefunded(refund) => {
                let (Some(who), Some(order)) = (event.who(), &refund.order_id) else { return Ok(()) };
                self.take_back(who, order, Some(refund), cx.now(), cx)?;
            }
            UserEventKind::OrderCancelled { order_id } => {
                let Some(who) = event.who() else { return Ok(()) };
                self.take_back(who, order_id, None, cx.now(), cx)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn on_timer(&mut self, timer: &Timer, cx: &mut Context<'_>) -> Result<()> {
        let user = UserId::from(timer.key.as_str());
        if timer.is(self.forget_order) {
            cx.delete(&self.taken_back, &(user, OrderId::from(timer.detail.as_str())));
            return Ok(());
        }
        let mut any_left = false;
        for (key, at) in cx.rows(&self.views, &user)? {
            if at + ONE_VIEW_IN <= cx.now() {
                cx.delete(&self.views, &key);
            } else {
                any_left = true;
            }
        }
        // Not when the next one ends: all rows of a user who views much would be read for each of them.
        if any_left { cx.set_timer(self.forget_views, &timer.key, "", cx.now() + ONE_VIEW_IN) } else { Ok(()) }
    }
}

impl DemandSignals {
    /// Counts at the event's time; where its bucket is closed, in the one that holds the watermark.
    fn count(&self, product: &ProductId, counts: Counts, cx: &mut Context<'_>) {
        if counts.is_zero() {
            return;
        }
        cx.combine(&self.signals, Signal { product: product.clone(), place: Place::here(open_bucket(cx)), counts });
    }

    fn is_new_view(&self, who: Option<&UserId>, product: &ProductId, cx: &mut Context<'_>) -> Result<bool> {
        let Some(who) = who else { return Ok(true) };
        let key = (who.clone(), product.clone());
        if cx.get(&self.views, &key)?.is_some_and(|at| cx.now().since(at).unsigned_abs() < ONE_VIEW_IN.as_millis() as u64) {
            return Ok(false);
        }
        cx.put(&self.views, &key, &cx.now())?;
        if cx.timer_at(self.forget_views, who.as_str(), "")?.is_none() {
            cx.set_timer(self.forget_views, who.as_str(), "", cx.now() + ONE_VIEW_IN)?;
        }
        Ok(true)
    }

    /// Takes back what a cancellation (`refund` absent) or a refund undoes of an order that still weighs something:
    /// the items a refund names, else all once it is refunded in full. An order older than the window has no weight left
    /// to take; one unknown comes later, and what happened at `at` once more with it.
    fn take_back(&self, who: &UserId, order_id: &OrderId, refund: Option<&Refund>, at: Timestamp, cx: &mut Context<'_>) -> Result<()> {
        let key = (who.clone(), order_id.clone());
        let Some(order) = cx.get(&self.orders, &key)? else { return Ok(()) };
        let of = Bucket::of(cx.get(&self.late_orders, &key)?.unwrap_or(order.at));
        let place = Place { known: open_bucket(cx).max(Bucket::of(at)).max(of), of };
        if of.end() <= place.known.start() - WINDOW {
            return Ok(());
        }
        let mut taken = cx.get(&self.taken_back, &key)?.unwrap_or_default();
        let bought = pieces(&order.items);
        let wanted = match refund {
            Some(refund) => {
                let named = pieces(&refund.items);
                taken.amount = match refund.stated_amount() {
                    Some(amount) => taken.amount + amount,
                    None if named.is_empty() => order.total,
                    None => taken.amount,
                };
                // An order without prices has no total to reach.
                let is_all = taken.amount >= order.total && (named.is_empty() || order.total > Money::ZERO);
                if is_all { bought.clone() } else { named }
            }
            None => bought.clone(),
        };
        for (product, wanted) in wanted {
            let bought = bought.get(product).copied().unwrap_or(0);
            let back = taken.units.entry(product.clone()).or_insert(0);
            let units = wanted.min(bought - *back);
            if units <= 0 {
                continue;
            }
            *back += units;
            // The order's own weight goes once none of its pieces is left.
            let counts = Counts { orders: if *back == bought { -1 } else { 0 }, units: -units, ..Counts::default() };
            cx.combine(&self.signals, Signal { product: product.clone(), place, counts });
        }
        cx.put(&self.taken_back, &key, &taken)?;
        cx.set_timer(self.forget_order, who.as_str(), order_id.as_str(), of.end() + WINDOW + BUCKET)
    }
}

/// The bucket that counts what happens now.
fn open_bucket(cx: &Context<'_>) -> Bucket {
    Bucket::of(cx.now()).max(Bucket::of(cx.watermark()))
}

/// Pieces by product: two lines of one product are one sale.
fn pieces<'a>(items: impl IntoIterator<Item = &'a Item>) -> BTreeMap<&'a ProductId, i64> {
    let mut pieces = BTreeMap::new();
    for item in items {
        *pieces.entry(&item.product_id).or_insert(0) += i64::from(item.quantity);
    }
    pieces
}
