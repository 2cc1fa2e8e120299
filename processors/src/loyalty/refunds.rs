//! Refunds and cancellations take points back.

use super::{
    Loyalty,
    ledger::{Book, Entry},
    tables::OrderPoints,
    tiers::{self, Factor},
};
use crate::shopper::EarlyRefund;
use rust_decimal::{Decimal, prelude::ToPrimitive};
use tillflow_engine_api::{Context, Error, Result};
use tillflow_schemas::{EntryKind, Money, OrderId, Refund, Timestamp, UserEvent, UserId};

/// What one refund or cancellation takes back of an order.
struct TakeBack {
    entry_id: String,
    /// `None` is the whole order.
    amount: Option<Money>,
    currency: Option<String>,
}

impl TakeBack {
    fn refund(refund: &Refund, entry_id: String) -> Self {
        Self { entry_id, amount: refund.stated_amount(), currency: refund.currency.clone() }
    }

    /// A cancellation takes back all of the order's points, as the refund of the whole order does.
    fn cancellation(order_id: &OrderId) -> Self {
        Self { entry_id: format!("cancel:{order_id}"), amount: None, currency: None }
    }
}

impl Loyalty {
    /// A first-seen refund.
    pub(super) fn refund(&self, user: &UserId, event: &UserEvent, refund: &Refund, cx: &mut Context<'_>) -> Result<()> {
        let mut book = self.open(user, cx)?;
        let entry_id = entry_id(&book, refund, event.event_id.as_ref(), cx.now());
        match &refund.order_id {
            Some(order_id) => self.take_back(&mut book, order_id, TakeBack::refund(refund, entry_id), cx)?,
            None => {
                let stated = refund.stated_amount().unwrap_or(Money::ZERO);
                let amount = self.shop.value(stated, refund.currency.as_deref())?;
                self.refund_unnamed(&mut book, entry_id, amount, cx)?;
            }
        }
        self.close(book, cx)
    }

    /// A cancellation.
    pub(super) fn cancel(&self, user: &UserId, order_id: &OrderId, cx: &mut Context<'_>) -> Result<()> {
        let mut book = self.open(user, cx)?;
        self.take_back(&mut book, order_id, TakeBack::cancellation(order_id), cx)?;
        self.close(book, cx)
    }

    /// The order came: what came before it is applied.
    pub(super) fn apply_early(&self, book: &mut Book, order_id: &OrderId, cx: &mut Context<'_>) -> Result<()> {
        for EarlyRefund { refund, event_id, at } in self.early.of(&book.user, order_id, cx)? {
            let back = match &refund {
                Some(refund) => TakeBack::refund(refund, entry_id(book, refund, event_id.as_ref(), at)),
                None => TakeBack::cancellation(order_id),
            };
            self.take_back(book, order_id, back, cx)?;
            self.look(book, cx)?;
        }
        Ok(())
    }

    fn take_back(&self, book: &mut Book, order_id: &OrderId, back: TakeBack, cx: &mut Context<'_>) -> Result<()> {
        match cx.get(&self.tables.orders, &(book.user.clone(), order_id.clone()))? {
            Some(row) => self.refund_named(book, order_id, row, back, cx),
            // It waits for its order. A foreign amount without a rate is refused now rather than when that comes.
            None => self.shop.value(back.amount.unwrap_or(Money::ZERO), back.currency.as_deref()).map(|_| ()),
        }
    }

    fn refund_named(&self, book: &mut Book, order_id: &OrderId, mut row: OrderPoints, back: TakeBack, cx: &mut Context<'_>) -> Result<()> {
        let amount = match back.amount {
            Some(amount) => self.shop.value(amount, back.currency.as_deref().or(row.currency.as_deref()))?,
            None => row.total,
        };
        let refunded = (row.refunded + amount).min(row.total);
        let spent_less = refunded - row.refunded;
        let clawed = clawed(row.points, row.total, refunded);
        let mut points = clawed - row.clawed;
        book.account.net_spend = book.account.net_spend - spent_less;
        row.refunded = refunded;

        let note = |points: i64| format!("{points} points of order {order_id} taken back: {refunded} of {} refunded", row.total);
        if row.pending {
            points = points.min(row.left());
            book.account.pending -= points;
            let entry = Entry::note(back.entry_id, EntryKind::Refund, format!("{}, while pending", note(points)));
            self.write(book, entry.of_order(order_id), cx)?;
        } else {
            points = points.min(row.left());
            let forgiven = points.min(row.expired - row.forgiven);
            row.forgiven += forgiven;
            let entry = Entry {
                points: forgiven - points,
                lifetime: -points,
                ..Entry::note(back.entry_id, EntryKind::Refund, note(points)).of_order(order_id)
            };
            self.lose(book, entry, row.lot, cx)?;
        }
        row.clawed += points;
        cx.put(&self.tables.orders, &(book.user.clone(), order_id.clone()), &row)
    }

    /// A refund that names no order takes what its amount would earn now.
    fn refund_unnamed(&self, book: &mut Book, entry_id: String, amount: Money, cx: &mut Context<'_>) -> Result<()> {
        let multiplier = self.rules.tier(&book.account).map_or(Factor::ONE, |t| t.multiplier);
        let wanted = tiers::points(amount, multiplier)
            .ok_or_else(|| Error::reject(format!("{entry_id}: an amount of {amount} is more than points can count")))?;
        book.account.net_spend = book.account.net_spend - amount;
        let cancelled = self.cancel_pending(book, wanted, cx)?;
        let points = (wanted - cancelled).min(book.account.lifetime_points.max(0));
        let note = match cancelled {
            0 => format!("{points} points taken back for {amount} refunded"),
            _ => format!("{points} points taken back for {amount} refunded, and {cancelled} that were pending"),
        };
        let entry = Entry { points: -points, lifetime: -points, ..Entry::note(entry_id, EntryKind::Refund, note) };
        self.lose(book, entry, None, cx)?;
        Ok(())
    }

    /// Cancels up to `wanted` pending points, of the oldest orders first; returns how many.
    fn cancel_pending(&self, book: &mut Book, wanted: i64, cx: &mut Context<'_>) -> Result<i64> {
        let mut left = wanted.min(book.account.pending);
        let cancelled = left;
        book.account.pending -= cancelled;
        let mut orders = Vec::new();
        if left > 0 {
            cx.scan(&self.tables.pending, &book.user, |(_, _, order_id), ()| {
                orders.push(order_id);
                true
            })?;
        }
        for order_id in orders {
            let key = (book.user.clone(), order_id);
            let Some(mut row) = cx.get(&self.tables.orders, &key)? else { continue };
            let taken = row.left().min(left);
            row.cancelled += taken;
            left -= taken;
            cx.put(&self.tables.orders, &key, &row)?;
            if left == 0 {
                break;
            }
        }
        Ok(cancelled)
    }
}

/// A refund counts once by its own id, else by its event's; one with neither has a number of its own.
fn entry_id(book: &Book, refund: &Refund, event_id: Option<&String>, at: Timestamp) -> String {
    match refund.refund_id.as_ref().or(event_id) {
        Some(id) => format!("refund:{id}"),
        None => format!("refund:at:{}:{}", at.millis(), book.account.serial),
    }
}

/// What refunds of `refunded` (at most `total`) take back of an order's `points`: all once all is refunded, else
/// `floor(points × refunded / total)`.
fn clawed(points: i64, total: Money, refunded: Money) -> i64 {
    if refunded >= total {
        return points;
    }
    let (total, refunded) = (total.decimal(), refunded.decimal());
    let scale = total.scale().max(refunded.scale());
    let whole = |d: Decimal| d.mantissa().checked_mul(10_i128.checked_pow(scale - d.scale())?);
    // Exact in integers; an amount of so many digits that these overflow is divided as a decimal.
    let exact = || i128::from(points).checked_mul(whole(refunded)?)?.checked_div(whole(total)?)?.to_i64();
    let nearly = || Decimal::from(points).checked_mul(refunded.checked_div(total)?)?.floor().to_i64();
    exact().or_else(nearly).unwrap_or(points)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn take(points: i64, total: &str, refunded: &str) -> i64 {
        clawed(points, Money::parse(total).unwrap(), Money::parse(refunded).unwrap())
    }

    #[test]
    fn a_part_takes_its_share_rounded_down_and_the_whole_takes_all() {
        assert_eq!(take(499, "499.99", "100"), 99);
        assert_eq!(take(499, "499.99", "499.98"), 498);
        assert_eq!(take(499, "499.99", "499.99"), 499);
        assert_eq!(take(100, "3", "1"), 33);
        assert_eq!(take(0, "0", "0"), 0);
        assert_eq!(take(5, "0", "0"), 5, "a free order is refunded wholly");
        assert_eq!(take(7, "7.000", "2.1"), 2, "scales may differ");
        assert_eq!(take(1_000_000_000_000, "999999999999.99999999999999", "499999999999.99999999999999"), 499_999_999_999);
    }

    proptest! {
        #[test]
        fn more_refunded_never_takes_less_and_never_more_than_all(points in 0..10_000_i64, total in 1..1_000_000_i64, a in 0..1_000_000_i64, b in 0..1_000_000_i64) {
            let cents = |n: i64| Money::from(Decimal::new(n, 2));
            let (a, b) = (a.min(b).min(total), a.max(b).min(total));
            prop_assert!(clawed(points, cents(total), cents(a)) <= clawed(points, cents(total), cents(b)));
            prop_assert!((0..=points).contains(&clawed(points, cents(total), cents(b))));
            prop_assert_eq!(clawed(points, cents(total), cents(total)), points);
        }
    }
}
