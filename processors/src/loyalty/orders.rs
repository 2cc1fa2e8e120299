//! What an order earns.

use super::{
    Loyalty,
    ledger::{Book, Entry},
    settings::{DAY, EarningSettings},
    tables::OrderPoints,
    tiers::{self, Factor},
};
use rust_decimal::Decimal;
use tillflow_engine_api::{Context, Error, Result};
use tillflow_schemas::{EntryKind, Item, Money, Order, OrderId, ProductId, Timestamp, UserId};

impl Loyalty {
    /// A first-seen order: its points, what they complete, its spins, and refunds that came before it.
    pub(super) fn earn(&self, user: &UserId, order: &Order, cx: &mut Context<'_>) -> Result<()> {
        let mut book = self.open(user, cx)?;
        let total = self.shop.value(order.total(), order.currency.as_deref())?;
        let points = self.worth(&book, order, total, cx)?;
        let is_first = book.account.orders == 0;
        book.account.orders += 1;
        book.account.net_spend = book.account.net_spend + total;
        book.account.first_order_at.get_or_insert(cx.now());

        let mut row = OrderPoints {
            at: cx.now(),
            points,
            total,
            currency: order.currency.clone(),
            refunded: Money::ZERO,
            clawed: 0,
            cancelled: 0,
            expired: 0,
            forgiven: 0,
            lot: None,
            pending: self.rules.return_window_days > 0,
            spins: 0,
            spun: 0,
        };
        if row.pending {
            self.hold_back(&mut book, &order.order_id, points, cx)?;
        } else {
            let note = format!("{points} points for {total}");
            let entry = Entry::gain(format!("order:{}", order.order_id), EntryKind::Earn, points, note).of_order(&order.order_id);
            row.lot = self.gain(&mut book, entry, cx)?;
        }
        self.advance_challenges(&mut book, order, total, cx)?;
        if is_first {
            self.await_veteran_badges(&book, cx)?;
            self.reward_referral(&mut book, &order.order_id, cx)?;
        }
        self.look(&mut book, cx)?;
        row.spins = self.grant_spins(&book, &order.order_id, cx)?;
        cx.put(&self.tables.orders, &(user.clone(), order.order_id.clone()), &row)?;
        // As if they came now: after all that the order itself brings.
        self.apply_early(&mut book, &order.order_id, cx)?;
        self.close(book, cx)
    }

    /// What an order earns in the tier before it.
    fn worth(&self, book: &Book, order: &Order, total: Money, cx: &Context<'_>) -> Result<i64> {
        let multiplier = self.rules.tier(&book.account).map_or(Factor::ONE, |t| t.multiplier);
        let category = |product: &ProductId| cx.lookup(&self.products, product.as_str()).map(|p| p.category.clone());
        earning_total(&self.rules.earning, &order.items, total, cx.now(), category)
            .and_then(|counted| tiers::points(counted, multiplier))
            .ok_or_else(|| Error::reject(format!("order {}: a total of {total} is more than points can count", order.order_id)))
    }

    /// Within the return window points are in neither sum.
    fn hold_back(&self, book: &mut Book, order_id: &OrderId, points: i64, cx: &mut Context<'_>) -> Result<()> {
        let until = cx.now().plus(DAY * self.rules.return_window_days);
        let note = format!("{points} points, pending until {until}");
        self.write(book, Entry::note(format!("order:{order_id}"), EntryKind::Pending, note).of_order(order_id), cx)?;
        book.account.pending += points;
        cx.put(&self.tables.pending, &(book.user.clone(), cx.now().millis(), order_id.clone()), &())?;
        cx.set_timer(self.release_timer, book.user.as_str(), order_id.as_str(), until)
    }

    /// The return window has closed: what refunds left of the points counts from now on.
    pub(super) fn release(&self, user: &UserId, order_id: &OrderId, cx: &mut Context<'_>) -> Result<()> {
        let key = (user.clone(), order_id.clone());
        let Some(mut row) = cx.get(&self.tables.orders, &key)?.filter(|row| row.pending) else { return Ok(()) };
        let mut book = self.open(user, cx)?;
        let points = row.left();
        book.account.pending -= points;
        let note = format!("{points} points, pending until now");
        let entry = Entry::gain(format!("release:{order_id}"), EntryKind::Release, points, note).of_order(order_id);
        row.lot = self.gain(&mut book, entry, cx)?;
        row.pending = false;
        cx.delete(&self.tables.pending, &(user.clone(), row.at.millis(), order_id.clone()));
        cx.put(&self.tables.orders, &key, &row)?;
        self.close(book, cx)
    }
}

/// The part of `total` that earns: each item's amount times the greatest multiplier that fits it, nothing for what is
/// excluded. What the total holds beside its items (shipping, discounts) is spread over them. An order whose items are
/// not all priced takes only the multipliers that fit every item. `None` beyond what a decimal holds.
fn earning_total(
    rules: &EarningSettings,
    items: &[Item],
    total: Money,
    at: Timestamp,
    category: impl Fn(&ProductId) -> Option<String>,
) -> Option<Money> {
    if rules.rules.is_empty() && rules.exclude_products.is_empty() && rules.exclude_categories.is_empty() {
        return Some(total);
    }
    let in_time: Vec<_> = rules.rules.iter().filter(|r| r.from.is_none_or(|t| t <= at) && r.until.is_none_or(|t| at < t)).collect();
    let factor = |item: Option<&Item>| {
        let of = item.and_then(|i| category(&i.product_id));
        let product_in = |list: &[ProductId]| item.is_some_and(|i| list.contains(&i.product_id));
        let category_in = |list: &[String]| of.as_ref().is_some_and(|c| list.contains(c));
        if product_in(&rules.exclude_products) || category_in(&rules.exclude_categories) {
            return Decimal::ZERO;
        }
        let fits = |r: &&&super::settings::EarningRule| {
            (r.products.is_empty() || product_in(&r.products)) && (r.categories.is_empty() || category_in(&r.categories))
        };
        in_time.iter().filter(fits).map(|r| r.multiplier.0).max().unwrap_or(Decimal::ONE)
    };
    let mut listed = Decimal::ZERO;
    let mut counted = Decimal::ZERO;
    for item in items {
        let Some(price) = item.price else { return total.decimal().checked_mul(factor(None)).map(Money::from) };
        let amount = price.times(item.quantity)?.decimal();
        listed = listed.checked_add(amount)?;
        counted = counted.checked_add(amount.checked_mul(factor(Some(item)))?)?;
    }
    if listed.is_zero() {
        return total.decimal().checked_mul(factor(None)).map(Money::from);
    }
    // Multiplied before it is divided, so that a plain share comes out exact.
    total.decimal().checked_mul(counted)?.checked_div(listed).map(Money::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn money(text: &str) -> Money {
        Money::parse(text).unwrap()
    }

    fn counted(rules: serde_json::Value, items: &[(&str, u32, Option<&str>)], total: &str) -> Money {
        let rules = serde_json::from_value(rules).unwrap();
        let items: Vec<_> = items
            .iter()
            .map(|(p, quantity, price)| Item { product_id: (*p).into(), quantity: *quantity, price: price.map(money) })
            .collect();
        let category = |p: &ProductId| p.as_str().starts_with("tea").then(|| "tea".to_owned());
        earning_total(&rules, &items, money(total), Timestamp::from_millis(1_000), category).unwrap()
    }

    #[test]
    fn the_greatest_multiplier_that_fits_an_item_counts_and_excluded_items_earn_nothing() {
        let items = [("tea1", 2, Some("10")), ("mug", 1, Some("20"))];
        assert_eq!(counted(json!({}), &items, "40"), money("40"));
        assert_eq!(counted(json!({"rules": [{"multiplier": 2, "categories": ["tea"]}]}), &items, "40"), money("60"));
        assert_eq!(
            counted(json!({"rules": [{"multiplier": 2, "categories": ["tea"]}, {"multiplier": 3, "products": ["tea1"]}]}), &items, "40"),
            money("80")
        );
        assert_eq!(counted(json!({"exclude_products": ["mug"]}), &items, "40"), money("20"));
        assert_eq!(counted(json!({"exclude_categories": ["tea"]}), &items, "44"), money("22"), "shipping is spread");
        assert_eq!(counted(json!({"rules": [{"multiplier": 2}]}), &items, "44"), money("88"));
    }

    #[test]
    fn a_multiplier_counts_from_its_first_to_before_its_last_moment_and_for_unpriced_items_if_it_fits_all() {
        let rule = |from: i64, until: i64| json!({"rules": [{"multiplier": 2, "from": from, "until": until}]});
        let items = [("mug", 1, None)];
        assert_eq!(counted(rule(1_000, 1_001), &items, "5"), money("10"));
        assert_eq!(counted(rule(0, 1_000), &items, "5"), money("5"));
        assert_eq!(counted(rule(1_001, 2_000), &items, "5"), money("5"));
        assert_eq!(counted(json!({"rules": [{"multiplier": 2, "products": ["mug"]}]}), &items, "5"), money("5"));
    }
}
