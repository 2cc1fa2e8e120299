//! Orders and refunds within the spend window, a row each, so that spend is net and leaves by the day it was made.

use crate::{
    email::{Span, facts::Facts},
    shop::ShopSettings,
    shopper::{ORDERS, PlacedOrder},
};
use serde::{Deserialize, Serialize};
use tillflow_engine_api::{Context, Declare, Result};
use tillflow_schemas::{Money, Order, OrderId, Refund, Timestamp, UserId};
use tillflow_state::Table;

/// An order, or a refund that names none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Purchase {
    /// In the shop's currency, less what was refunded; negative for a refund that names no order.
    pub net: Money,
    /// Whether it is an order.
    pub is_order: bool,
    /// Categories it bought from.
    pub categories: Vec<String>,
}

type Key = (UserId, i64, String);

/// The rows of purchases.
pub struct Purchases {
    rows: Table<Key, Purchase>,
    placed: Table<(UserId, OrderId), PlacedOrder>,
    window: Span,
}

impl Purchases {
    /// Declares the tables.
    pub fn declare(d: &mut Declare<'_>, window: Span) -> Self {
        Self { rows: d.store("email.purchases"), placed: d.read(ORDERS), window }
    }

    /// An order was placed at `at`.
    ///
    /// # Errors
    /// When its currency has no rate, or the store fails.
    pub fn place(
        &self,
        user: &UserId,
        order: &Order,
        categories: Vec<String>,
        shop: &ShopSettings,
        facts: &mut Facts,
        cx: &mut Context<'_>,
    ) -> Result<()> {
        let net = shop.value(order.total(), order.currency.as_deref())?;
        facts.buy(&categories);
        self.add(user, order.order_id.as_str(), Purchase { net, is_order: true, categories }, facts, cx)
    }

    /// A refund takes from the order it names, never below nothing, or once that has come; one that names none takes its
    /// amount at its own time.
    ///
    /// # Errors
    /// When its currency has no rate, or the store fails.
    pub fn refund(
        &self,
        user: &UserId,
        refund: &Refund,
        event_id: Option<&str>,
        shop: &ShopSettings,
        facts: &mut Facts,
        cx: &mut Context<'_>,
    ) -> Result<()> {
        let Some(order_id) = &refund.order_id else {
            let Some(amount) = refund.stated_amount() else { return Ok(()) };
            let amount = shop.value(amount, refund.currency.as_deref())?;
            let id = format!("refund:{}", refund.refund_id.as_deref().or(event_id).unwrap_or_default());
            return self.add(user, &id, Purchase { net: Money::ZERO - amount, is_order: false, categories: Vec::new() }, facts, cx);
        };
        let Some(placed) = cx.get(&self.placed, &(user.clone(), order_id.clone()))? else { return Ok(()) };
        let key = (user.clone(), placed.at.millis(), order_id.as_str().to_owned());
        let Some(mut row) = cx.get(&self.rows, &key)? else { return Ok(()) };
        let taken = match refund.stated_amount() {
            Some(amount) => shop.value(amount, refund.currency.as_deref().or(placed.currency.as_deref()))?.min(row.net),
            None => row.net,
        };
        row.net = row.net - taken;
        facts.spend = facts.spend - taken;
        cx.put(&self.rows, &key, &row)
    }

    /// A cancelled order was none.
    ///
    /// # Errors
    /// When the store fails.
    pub fn cancel(&self, user: &UserId, order_id: &OrderId, facts: &mut Facts, cx: &mut Context<'_>) -> Result<()> {
        let Some(placed) = cx.get(&self.placed, &(user.clone(), order_id.clone()))? else { return Ok(()) };
        let key = (user.clone(), placed.at.millis(), order_id.as_str().to_owned());
        let Some(row) = cx.get(&self.rows, &key)? else { return Ok(()) };
        facts.spend = facts.spend - row.net;
        facts.cancel(placed.at, &row.categories);
        cx.delete(&self.rows, &key);
        Ok(())
    }

    /// Drops what has left the window by `facts.clock`.
    ///
    /// # Errors
    /// When the store fails.
    pub fn expire(&self, user: &UserId, facts: &mut Facts, cx: &mut Context<'_>) -> Result<()> {
        if facts.spend_changes.is_none_or(|at| at > facts.clock) {
            return Ok(());
        }
        let mut gone = Vec::new();
        facts.spend_changes = None;
        cx.scan(&self.rows, user, |key: Key, row| {
            let leaves = Timestamp::from_millis(key.1) + self.window.get();
            if leaves > facts.clock {
                facts.spend_changes = Some(leaves);
                return false;
            }
            facts.spend = facts.spend - row.net;
            gone.push(key);
            true
        })?;
        gone.iter().for_each(|key| cx.delete(&self.rows, key));
        Ok(())
    }

    /// All of a user's, oldest first.
    ///
    /// # Errors
    /// When the store fails.
    pub fn of(&self, user: &UserId, cx: &Context<'_>) -> Result<Vec<(Timestamp, Purchase)>> {
        Ok(cx.rows(&self.rows, user)?.into_iter().map(|(key, row)| (Timestamp::from_millis(key.1), row)).collect())
    }

    fn add(&self, user: &UserId, id: &str, purchase: Purchase, facts: &mut Facts, cx: &mut Context<'_>) -> Result<()> {
        let leaves = cx.now() + self.window.get();
        if leaves <= facts.clock {
            return Ok(());
        }
        let key = (user.clone(), cx.now().millis(), id.to_owned());
        // Refunds without any id at the same moment share a row.
        let before = cx.get(&self.rows, &key)?.map_or(Money::ZERO, |row| row.net);
        facts.spend = facts.spend + purchase.net;
        facts.spend_changes = Some(facts.spend_changes.map_or(leaves, |t| t.min(leaves)));
        cx.put(&self.rows, &key, &Purchase { net: before + purchase.net, ..purchase })
    }
}
