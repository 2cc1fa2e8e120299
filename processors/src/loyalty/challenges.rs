//! Challenges: goals within a calendar month that bring a bonus.

use super::{
    Loyalty,
    definition::{self, from_fields},
    ledger::{Book, Entry},
};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{borrow::Cow, collections::BTreeMap};
use tillflow_engine_api::{Context, Result};
use tillflow_schemas::{Challenge, EntryKind, Money, Order};

/// The built-in challenge.
pub const THREE_PURCHASES: &str = "three_purchases";

/// A challenge as a shop defines it, in the configuration or on the topic `challenges`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ChallengeRule {
    /// Shown to shoppers.
    #[serde(default)]
    pub name: String,
    /// The bonus; no tier multiplies it.
    pub points: i64,
    /// What counts.
    pub goal: Goal,
    /// How much of it: orders, an amount, pieces, or months in a row.
    pub target: Money,
    /// The category whose pieces count, for the goal `category`.
    #[serde(default)]
    pub category: Option<String>,
    /// `false` switches it off, also a built-in one.
    #[serde(default = "yes")]
    pub enabled: bool,
}

/// What counts in a challenge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// Orders in a calendar month.
    Orders,
    /// Their totals.
    Spend,
    /// Pieces of one category ordered in a calendar month.
    Category,
    /// Calendar months in a row with an order each; the next row begins after.
    Streak,
}

fn yes() -> bool {
    true
}

const FIELDS: &[&str] = &["name", "points", "goal", "target", "category", "enabled"];
/// The longest row of months, so that looking back is bounded.
const LONGEST_STREAK: u32 = 120;

/// What is wrong with a challenge of the topic, where something is.
pub(super) fn check(challenge: &Challenge) -> Result<(), String> {
    definition::check(&challenge.fields, FIELDS, ChallengeRule::problem)
}

impl ChallengeRule {
    /// What is wrong with it, in words.
    pub fn problem(&self) -> Option<String> {
        if self.points < 0 {
            return Some(format!("points: {} is below 0", self.points));
        }
        if self.target <= Money::ZERO {
            return Some(format!("target: {} is not above 0", self.target));
        }
        if self.goal == Goal::Category && self.category.is_none() {
            return Some("category: is missing".into());
        }
        if self.goal == Goal::Streak && self.target.decimal() > Decimal::from(LONGEST_STREAK) {
            return Some(format!("target: a row of {} months is longer than {LONGEST_STREAK}", self.target));
        }
        None
    }

    fn three_purchases() -> Self {
        Self {
            name: "Three purchases in a month".into(),
            points: 50,
            goal: Goal::Orders,
            target: Money::from(Decimal::from(3)),
            category: None,
            enabled: true,
        }
    }
}

/// The built-in challenge and those of the configuration.
pub(super) fn configured(own: &BTreeMap<String, ChallengeRule>) -> Vec<(String, ChallengeRule)> {
    let mut rules = BTreeMap::from([(THREE_PURCHASES.to_owned(), ChallengeRule::three_purchases())]);
    rules.extend(own.clone());
    in_order(rules)
}

/// The built-in one first, then by id.
fn in_order(rules: BTreeMap<String, ChallengeRule>) -> Vec<(String, ChallengeRule)> {
    let mut rules: Vec<_> = rules.into_iter().collect();
    rules.sort_by_key(|(id, _)| id != THREE_PURCHASES);
    rules
}

impl Loyalty {
    /// The challenges in force, in the order in which their bonuses come: those of the topic before those configured.
    fn challenges(&self, cx: &Context<'_>) -> Cow<'_, [(String, ChallengeRule)]> {
        let stated: BTreeMap<_, _> = cx
            .lookup_all(&self.challenge_records)
            .filter_map(|(id, record)| Some((id.to_owned(), from_fields::<ChallengeRule>(&record.fields, FIELDS).ok()?)))
            .filter(|(_, rule)| rule.problem().is_none())
            .collect();
        if stated.is_empty() {
            return Cow::Borrowed(&self.challenges);
        }
        let mut rules: BTreeMap<_, _> = self.challenges.iter().cloned().collect();
        rules.extend(stated);
        Cow::Owned(in_order(rules))
    }

    /// Counts a first-seen order; a challenge that it completes brings its bonus, once a month.
    pub(super) fn advance_challenges(&self, book: &mut Book, order: &Order, total: Money, cx: &mut Context<'_>) -> Result<()> {
        let month = self.month(cx.now());
        for (id, rule) in self.challenges(cx).iter().filter(|(_, rule)| rule.enabled) {
            let step = match rule.goal {
                Goal::Orders | Goal::Streak => Money::from(Decimal::ONE),
                Goal::Spend => total,
                Goal::Category => {
                    let fits = |p| rule.category.is_some() && cx.lookup(&self.products, p).map(|p| p.category.clone()) == rule.category;
                    let pieces: u64 = order.items.iter().filter(|i| fits(i.product_id.as_str())).map(|i| u64::from(i.quantity)).sum();
                    Money::from(Decimal::from(pieces))
                }
            };
            if step == Money::ZERO {
                continue;
            }
            let key = (book.user.clone(), id.clone(), month.clone());
            let mut progress = cx.get(&self.tables.progress, &key)?.unwrap_or_default();
            progress.reached = progress.reached + step;
            let reached =
                if rule.goal == Goal::Streak { self.streak(book, id, &month, rule.target, cx)? } else { progress.reached >= rule.target };
            let completed = reached && !progress.done;
            progress.done |= completed;
            cx.put(&self.tables.progress, &key, &progress)?;
            if completed {
                self.complete_challenge(book, id, &month, rule, cx)?;
            }
        }
        Ok(())
    }

    fn complete_challenge(&self, book: &mut Book, id: &str, month: &str, rule: &ChallengeRule, cx: &mut Context<'_>) -> Result<()> {
        let name = if rule.name.is_empty() { id } else { &rule.name };
        let note = format!("{name}, {month}");
        self.gain(book, Entry::gain(format!("challenge:{id}:{month}"), EntryKind::Bonus, rule.points, note), cx)?;
        let data = json!({"challenge_id": id, "name": name, "month": month, "points": rule.points});
        self.notify(book, "challenge_completed", format!("Challenge completed: {name}"), data, cx)
    }

    /// Whether this month makes a row of `target` months with an order each, none of which ended a row before.
    fn streak(&self, book: &Book, id: &str, month: &str, target: Money, cx: &Context<'_>) -> Result<bool> {
        let mut before = month.to_owned();
        let mut row = Decimal::ONE;
        while row < target.decimal() {
            before = month_before(&before);
            match cx.get(&self.tables.progress, &(book.user.clone(), id.to_owned(), before.clone()))? {
                Some(progress) if !progress.done => row += Decimal::ONE,
                _ => return Ok(false),
            }
        }
        Ok(true)
    }
}

/// The month before `2026-01` is `2025-12`.
fn month_before(month: &str) -> String {
    let (year, number) = month.split_once('-').and_then(|(y, m)| Some((y.parse::<i32>().ok()?, m.parse::<u32>().ok()?))).unwrap_or((0, 1));
    if number <= 1 { format!("{:04}-12", year - 1) } else { format!("{year:04}-{:02}", number - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_are_counted_back_over_the_year() {
        assert_eq!(month_before("2026-03"), "2026-02");
        assert_eq!(month_before("2026-01"), "2025-12");
    }

    #[test]
    fn a_challenge_that_can_not_be_reached_is_a_problem() {
        let rule = |json| serde_json::from_value::<ChallengeRule>(json).unwrap().problem();
        assert_eq!(rule(json!({"points": 5, "goal": "spend", "target": "99.50"})), None);
        assert_eq!(rule(json!({"points": 5, "goal": "orders", "target": 0})).unwrap(), "target: 0 is not above 0");
        assert_eq!(rule(json!({"points": 5, "goal": "category", "target": 2})).unwrap(), "category: is missing");
        assert!(rule(json!({"points": 5, "goal": "streak", "target": 500})).is_some());
    }
}
