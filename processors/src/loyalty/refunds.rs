//! Refunds and cancellations take points back.

use super::{
    Loyalty,
    ledger::{Book, Entry},
    settings::DAY,
    tables::{HeldRefund, OrderPoints},
    tiers::{self, Factor},
};
use rust_decimal::{Decimal, prelude::ToPrimitive};
use tillflow_engine_api::{Context, Error, Result};
use tillflow_schemas::{EntryKind, Money, OrderId, Refund, UserEvent, UserId};

/// Refunds of one user that wait for their orders at a time.
const HELD_LIMIT: u32 = 1_000;

impl Loyalty {
    /// A first-seen refund.
    pub(super) fn refund(&self, user: &UserId, event: &UserEvent, refund: &Refund, cx: &mut Context<'_>) -> Result<()> {
        let mut book = self.open(user, cx)?;
        let id = refund.refund_id.as_ref().or(event.event_id.as_ref());
        let entry_id = id.map_or_else(|| format!("refund:at:{}:{}", cx.now().millis(), book.account.serial), |id| format!("refund:{id}"));
        let refund_of = |amount| HeldRefund { entry_id: entry_id.clone(), amount, currency: refund.currency.clone(), at: event.timestamp };
        match &refund.order_id {
            Some(order_id) => self.refund_order(&mut book, order_id, refund_of(refund.stated_amount()), cx)?,
            None => {
                let stated = refund.stated_amount().unwrap_or(Money::ZERO);
                let amount = self.shop.value(stated, refund.currency.as_deref())?;
                self.refund_unnamed(&mut book, entry_id, amount, cx)?;
            }
        }
        self.close(book, cx)
    }

    /// A cancellation takes back all of the order's points, as the refund of the whole order does.
    pub(super) fn cancel(&self, user: &UserId, order_id: &OrderId, cx: &mut Context<'_>) -> Result<()> {
        let mut book = self.open(user, cx)?;
        let whole = HeldRefund { entry_id: format!("cancel:{order_id}"), amount: None, currency: None, at: cx.now() };
        self.refund_order(&mut book, order_id, whole, cx)?;
        self.close(book, cx)
    }

    fn refund_order(&self, book: &mut Book, order_id: &OrderId, refund: HeldRefund, cx: &mut Context<'_>) -> Result<()> {
        match cx.get(&self.tables.orders, &(book.user.clone(), order_id.clone()))? {
            Some(row) => self.refund_named(book, order_id, row, refund, cx),
            None => self.hold(book, order_id, refund, cx),
        }
    }

    /// The refund came before its order: it waits.
    fn hold(&self, book: &mut Book, order_id: &OrderId, refund: HeldRefund, cx: &mut Context<'_>) -> Result<()> {
        // A foreign amount without a rate is refused now rather than when the order comes.
        self.shop.value(refund.amount.unwrap_or(Money::ZERO), refund.currency.as_deref())?;
        if book.account.held >= HELD_LIMIT {
            return Err(Error::reject(format!("order_id: {HELD_LIMIT} refunds of this user already wait for orders that did not come")));
        }
        book.account.held += 1;
        book.account.serial += 1;
        let serial = book.account.serial;
        cx.put(&self.tables.held, &(book.user.clone(), order_id.clone(), serial), &refund)?;
        let until = cx.now().plus(DAY * self.rules.refund_hold_days);
        cx.set_timer(self.held_timer, book.user.as_str(), &format!("{serial}:{order_id}"), until)
    }

    /// The order came: what waited for it is applied in the order in which it came.
    pub(super) fn apply_held(&self, book: &mut Book, order_id: &OrderId, cx: &mut Context<'_>) -> Result<()> {
        if book.account.held == 0 {
            return Ok(());
        }
        for (key, refund) in cx.rows(&self.tables.held, &(book.user.clone(), order_id.clone()))? {
            let Some(row) = cx.get(&self.tables.orders, &(book.user.clone(), order_id.clone()))? else { break };
            cx.cancel_timer(self.held_timer, book.user.as_str(), &format!("{}:{order_id}", key.2))?;
            cx.delete(&self.tables.held, &key);
            book.account.held -= 1;
            self.refund_named(book, order_id, row, refund, cx)?;
            self.look(book, cx)?;
        }
        Ok(())
    }

    /// The order did not come, or is another user's: the refund becomes a dead letter. That undoes what the same
    /// timer did, so a second one, due at once, does it.
    pub(super) fn give_up(&self, user: &UserId, detail: &str, cx: &mut Context<'_>) -> Result<()> {
        let Some((serial, order_id)) = detail.split_once(':').and_then(|(n, id)| Some((n.parse().ok()?, OrderId::from(id)))) else {
            return Ok(());
        };
        let key = (user.clone(), order_id, serial);
        let Some(refund) = cx.get(&self.tables.held, &key)? else { return Ok(()) };
        cx.delete(&self.tables.held, &key);
        let mut book = self.open(user, cx)?;
        book.account.held = book.account.held.saturating_sub(1);
        self.close(book, cx)?;
        let amount = refund.amount.map_or_else(|| "the whole order".to_owned(), |a| a.to_string());
        let reason = format!(
            "{} of {}, over {amount}, names order {}, which user {user} did not place within {} days",
            refund.entry_id, refund.at, key.1, self.rules.refund_hold_days
        );
        cx.set_timer(self.dead_timer, user.as_str(), &reason, cx.now())
    }

    fn refund_named(
        &self,
        book: &mut Book,
        order_id: &OrderId,
        mut row: OrderPoints,
        refund: HeldRefund,
        cx: &mut Context<'_>,
    ) -> Result<()> {
        let amount = match refund.amount {
            Some(amount) => self.shop.value(amount, refund.currency.as_deref().or(row.currency.as_deref()))?,
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
            let entry = Entry::note(refund.entry_id, EntryKind::Refund, format!("{}, while pending", note(points)));
            self.write(book, entry.of_order(order_id), cx)?;
        } else {
            points = points.min(row.left());
            let forgiven = points.min(row.expired - row.forgiven);
            row.forgiven += forgiven;
            let entry = Entry {
                points: forgiven - points,
                lifetime: -points,
                ..Entry::note(refund.entry_id, EntryKind::Refund, note(points)).of_order(order_id)
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
