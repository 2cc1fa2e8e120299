//! Redemption of rewards, its reversal, and adjustments by hand.

use super::{
    Loyalty, definition,
    ledger::{Book, Entry, command_entry},
    messages::Scarce,
    settings::DAY,
    tables::{NEVER, Redemption, Request},
};
use serde::{Deserialize, Serialize};
use tillflow_engine_api::{Context, Result};
use tillflow_schemas::{EntryKind, LoyaltyAction, LoyaltyCommand, Reward, UserId};

/// A reward as a shop defines it, in the configuration or on the topic `rewards`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RewardRule {
    /// Shown to shoppers.
    pub name: String,
    /// What it costs.
    pub points: i64,
    /// How many may ever be given out; absent: any number. Raise it to restock.
    #[serde(default)]
    pub stock: Option<i64>,
}

pub(super) const FIELDS: &[&str] = &["name", "points", "stock"];

/// The least number of days that points given back by a reversal can still be spent.
const REVERSAL_DAYS: u32 = 30;
/// The most that one adjustment can give or take.
const ADJUSTMENT_LIMIT: u64 = 1_000_000_000_000;

/// What is wrong with a reward of the topic, where something is.
pub(super) fn check(reward: &Reward) -> Result<(), String> {
    definition::check(&reward.fields, FIELDS, RewardRule::problem)
}

impl RewardRule {
    /// What is wrong with it, in words.
    pub fn problem(&self) -> Option<String> {
        if self.points <= 0 {
            return Some(format!("points: {} is not above 0", self.points));
        }
        self.stock.filter(|s| *s < 0).map(|s| format!("stock: {s} is below 0"))
    }
}

impl Loyalty {
    /// Obeys a command, or says why not, on the ledger.
    pub(super) fn obey(&self, command: &LoyaltyCommand, cx: &mut Context<'_>) -> Result<()> {
        let mut book = self.open(&command.user_id, cx)?;
        let id = command.command_id.as_str();
        let refused = match &command.action {
            LoyaltyAction::Redeem { reward_id } => self.redeem(&mut book, id, reward_id, cx)?,
            LoyaltyAction::Reverse { entry_id } => self.reverse(&mut book, id, entry_id, cx)?,
            LoyaltyAction::Spin { spin_id } => self.spin(&mut book, id, spin_id, cx)?,
            LoyaltyAction::Adjust { points, note } => self.adjust(&mut book, id, *points, note, cx)?,
            LoyaltyAction::Refer { referred_user_id } => self.refer(&book, id, referred_user_id, cx)?,
        };
        if let Some(reason) = refused {
            self.write(&mut book, Entry::rejected(id, reason), cx)?;
        }
        self.close(book, cx)
    }

    /// Pays for a reward; one of limited stock is asked for first, its points reserved meanwhile. Returns why not.
    fn redeem(&self, book: &mut Book, command_id: &str, reward_id: &str, cx: &mut Context<'_>) -> Result<Option<String>> {
        let reward = match self.reward(reward_id, cx) {
            Ok(reward) => reward,
            Err(reason) => return Ok(Some(reason)),
        };
        let free = book.account.balance - book.account.reserved;
        if free < reward.points {
            return Ok(Some(format!("{} costs {} points; {free} can be spent", reward.name, reward.points)));
        }
        if reward.stock.is_none() {
            self.pay(book, command_id, reward_id, &reward.name, reward.points, false, cx)?;
            return Ok(None);
        }
        book.account.reserved += reward.points;
        let request = Request::Reward { reward_id: reward_id.into(), name: reward.name, points: reward.points };
        cx.put(&self.tables.requests, &(book.user.clone(), command_id.into()), &request)?;
        self.ask(Scarce::Reward(reward_id.into()), 1, &book.user, command_id, cx)?;
        Ok(None)
    }

    /// The owner of a scarce thing has answered.
    pub(super) fn granted(&self, user: &UserId, command_id: &str, granted: bool, cx: &mut Context<'_>) -> Result<()> {
        let key = (user.clone(), command_id.to_owned());
        let Some(request) = cx.get(&self.tables.requests, &key)? else { return Ok(()) };
        cx.delete(&self.tables.requests, &key);
        let mut book = self.open(user, cx)?;
        match request {
            Request::Reward { reward_id, name, points } => {
                book.account.reserved -= points;
                if !granted {
                    self.write(&mut book, Entry::rejected(command_id, format!("{name} is out of stock")), cx)?;
                } else if book.account.balance < points {
                    // A refund came between.
                    self.give_back(Scarce::Reward(reward_id), 1, user, command_id, cx)?;
                    let reason = format!("{name} costs {points} points; {} can be spent", book.account.balance);
                    self.write(&mut book, Entry::rejected(command_id, reason), cx)?;
                } else {
                    self.pay(&mut book, command_id, &reward_id, &name, points, true, cx)?;
                }
            }
            Request::Spin { spin_id, order_id, number } => {
                self.spin_granted(&mut book, command_id, &spin_id, &order_id, number, granted, cx)?
            }
        }
        self.close(book, cx)
    }

    #[allow(clippy::too_many_arguments, reason = "each is one field of the redemption")]
    fn pay(
        &self,
        book: &mut Book,
        command_id: &str,
        reward_id: &str,
        name: &str,
        points: i64,
        stocked: bool,
        cx: &mut Context<'_>,
    ) -> Result<()> {
        let entry_id = command_entry(command_id);
        let entry = Entry { points: -points, ..Entry::note(&entry_id, EntryKind::Redeem, format!("{name} ({reward_id})")) };
        let youngest = self.lose(book, entry.answers(command_id), None, cx)?;
        let row = Redemption { reward_id: reward_id.into(), points, expires_at: youngest.unwrap_or(NEVER), stocked, reversed: false };
        cx.put(&self.tables.redemptions, &(book.user.clone(), entry_id), &row)
    }

    /// Gives the points of a redemption back, once. They expire when the youngest of them would have, at the earliest
    /// in [`REVERSAL_DAYS`]. Returns why not.
    fn reverse(&self, book: &mut Book, command_id: &str, entry_id: &str, cx: &mut Context<'_>) -> Result<Option<String>> {
        let key = (book.user.clone(), entry_id.to_owned());
        let Some(mut row) = cx.get(&self.tables.redemptions, &key)? else {
            return Ok(Some(format!("{entry_id} is no redemption of this user")));
        };
        if row.reversed {
            return Ok(Some(format!("{entry_id} was reversed before")));
        }
        row.reversed = true;
        cx.put(&self.tables.redemptions, &key, &row)?;
        let note = format!("{entry_id} reversed ({})", row.reward_id);
        let entry = Entry { points: row.points, ..Entry::note(command_entry(command_id), EntryKind::Reversal, note) };
        let until = row.expires_at.max(cx.now().plus(DAY * REVERSAL_DAYS).millis());
        self.gain_until(book, entry.answers(command_id), until, cx)?;
        if row.stocked {
            self.give_back(Scarce::Reward(row.reward_id), 1, &book.user, command_id, cx)?;
        }
        Ok(None)
    }

    /// Gives or takes points by hand, in both sums; only refunds may leave a balance negative. Returns why not.
    fn adjust(&self, book: &mut Book, command_id: &str, points: i64, note: &str, cx: &mut Context<'_>) -> Result<Option<String>> {
        if points.unsigned_abs() > ADJUSTMENT_LIMIT {
            return Ok(Some(format!("an adjustment by {points} is beyond 10^12 points")));
        }
        if let Some(limit) = self.rules.adjust_limit
            && points.abs() > limit
        {
            return Ok(Some(format!("an adjustment by {points} is beyond loyalty.adjust_limit {limit}: it needs a second person")));
        }
        let entry = Entry::gain(command_entry(command_id), EntryKind::Adjust, points, note).answers(command_id);
        if points >= 0 {
            self.gain(book, entry, cx)?;
            return Ok(None);
        }
        let free = book.account.balance - book.account.reserved;
        if free < -points {
            return Ok(Some(format!("{} points can't be taken: {free} can be spent", -points)));
        }
        let lifetime = points.max(-book.account.lifetime_points.max(0));
        self.lose(book, Entry { lifetime, ..entry }, None, cx)?;
        Ok(None)
    }
}
