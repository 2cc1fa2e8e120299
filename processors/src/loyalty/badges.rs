//! Badges, each awarded once.

use super::{
    Loyalty,
    definition::{self, from_fields},
    ledger::Book,
    settings::DAY,
};
use rust_decimal::{Decimal, prelude::ToPrimitive};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{borrow::Cow, collections::BTreeMap};
use tillflow_engine_api::{Context, Result};
use tillflow_schemas::{Badge, Money, UserId};

/// A badge as a shop defines it, in the configuration or on the topic `badges`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BadgeRule {
    /// Shown to shoppers.
    pub name: String,
    /// What is measured.
    pub measure: Measure,
    /// From how much on.
    pub at_least: Money,
    /// `false` switches it off, also a built-in one.
    #[serde(default = "yes")]
    pub enabled: bool,
}

/// What a badge measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Orders placed.
    Orders,
    /// Order totals less refunds.
    NetSpend,
    /// Points ever earned less those refunded.
    LifetimePoints,
    /// Days since the first order.
    Days,
}

fn yes() -> bool {
    true
}

const FIELDS: &[&str] = &["name", "measure", "at_least", "enabled"];
/// Badges in force at a time; those beyond, by id, are never awarded.
const BADGE_LIMIT: usize = 200;

/// What is wrong with a badge of the topic, where something is.
pub(super) fn check(badge: &Badge) -> Result<(), String> {
    definition::check::<BadgeRule>(&badge.fields, FIELDS, |_| None)
}

/// The built-in badges and those of the configuration, by id.
pub(super) fn configured(own: &BTreeMap<String, BadgeRule>) -> BTreeMap<String, BadgeRule> {
    let built_in = |name: &str, measure, at_least: i64| BadgeRule {
        name: name.into(),
        measure,
        at_least: Money::from(Decimal::from(at_least)),
        enabled: true,
    };
    let mut rules = BTreeMap::from([
        ("first_purchase".to_owned(), built_in("First Purchase", Measure::Orders, 1)),
        ("loyalty_veteran".to_owned(), built_in("Loyalty Veteran", Measure::Days, 365)),
        ("top_spender".to_owned(), built_in("Top Spender", Measure::NetSpend, 1_000)),
    ]);
    rules.extend(own.clone());
    rules
}

impl Loyalty {
    /// The badges in force, by id: those of the topic before those configured.
    fn badges(&self, cx: &Context<'_>) -> Cow<'_, BTreeMap<String, BadgeRule>> {
        let mut rules = Cow::Borrowed(&self.badges);
        for (id, record) in cx.lookup_all(&self.badge_records) {
            if let Ok(rule) = from_fields::<BadgeRule>(&record.fields, FIELDS) {
                rules.to_mut().insert(id.to_owned(), rule);
            }
        }
        rules
    }

    /// Awards the badges that the account has come to deserve. A refund takes none away.
    pub(super) fn award_badges(&self, book: &mut Book, cx: &mut Context<'_>) -> Result<()> {
        for (id, rule) in self.badges(cx).iter().filter(|(_, rule)| rule.enabled).take(BADGE_LIMIT) {
            if book.account.badges.contains(id) || self.measured(book, rule.measure, cx) < rule.at_least {
                continue;
            }
            book.account.badges.push(id.clone());
            self.notify(book, "badge_awarded", format!("Badge: {}", rule.name), json!({"badge_id": id, "name": rule.name}), cx)?;
        }
        Ok(())
    }

    fn measured(&self, book: &Book, measure: Measure, cx: &Context<'_>) -> Money {
        let account = &book.account;
        Money::from(match measure {
            Measure::Orders => Decimal::from(account.orders),
            Measure::NetSpend => account.net_spend.decimal(),
            Measure::LifetimePoints => Decimal::from(account.lifetime_points),
            Measure::Days => match account.first_order_at {
                Some(first) => Decimal::from(cx.now().since(first).div_euclid(DAY.as_millis() as i64)),
                None => Decimal::NEGATIVE_ONE,
            },
        })
    }

    /// Has the badges for days since the first order awarded when those days are over.
    pub(super) fn await_veteran_badges(&self, book: &Book, cx: &mut Context<'_>) -> Result<()> {
        for (id, rule) in self.badges(cx).iter() {
            let days = rule.at_least.decimal().ceil().to_u32();
            if let (Measure::Days, Some(days)) = (rule.measure, days) {
                cx.set_timer(self.veteran_timer, book.user.as_str(), id, cx.now().plus(DAY * days))?;
            }
        }
        Ok(())
    }

    /// Days have passed since the first order.
    pub(super) fn come_of_age(&self, user: &UserId, cx: &mut Context<'_>) -> Result<()> {
        let book = self.open(user, cx)?;
        self.close(book, cx)
    }
}
