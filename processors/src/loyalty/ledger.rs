//! The ledger: every change of an account is an entry, and the account is the sum of its entries.

use super::{
    Loyalty,
    account::Account,
    tables::{Lot, LotId, NEVER, StoredEntry},
};
use serde_json::{Map, Value, json};
use tillflow_engine_api::{Context, Error, Result};
use tillflow_schemas::{EntryKind, Notification, OrderId, Timestamp, UserId};

/// An account opened for one record or timer.
pub(super) struct Book {
    pub user: UserId,
    pub account: Account,
    /// The tier that the user was last told of.
    tier_told: String,
}

/// What is to be written into the ledger.
pub(super) struct Entry {
    pub id: String,
    pub kind: EntryKind,
    /// Signed change of the balance.
    pub points: i64,
    /// Signed change of the lifetime points.
    pub lifetime: i64,
    pub order_id: Option<OrderId>,
    pub command_id: Option<String>,
    pub note: String,
}

impl Entry {
    /// An entry that changes nothing.
    pub fn note(id: impl Into<String>, kind: EntryKind, note: impl Into<String>) -> Self {
        Self { id: id.into(), kind, points: 0, lifetime: 0, order_id: None, command_id: None, note: note.into() }
    }

    /// An entry of points won, which count in both sums.
    pub fn gain(id: impl Into<String>, kind: EntryKind, points: i64, note: impl Into<String>) -> Self {
        Self { points, lifetime: points, ..Self::note(id, kind, note) }
    }

    /// The answer to a command that is refused.
    pub fn rejected(command_id: &str, reason: impl Into<String>) -> Self {
        Self::note(command_entry(command_id), EntryKind::Rejected, reason).answers(command_id)
    }

    pub fn of_order(self, order_id: &OrderId) -> Self {
        Self { order_id: Some(order_id.clone()), ..self }
    }

    pub fn answers(self, command_id: &str) -> Self {
        Self { command_id: Some(command_id.to_owned()), ..self }
    }
}

/// The id of the entry that answers a command.
pub(super) fn command_entry(command_id: &str) -> String {
    format!("command:{command_id}")
}

impl Loyalty {
    /// Opens the account of `user`; one that does not exist is empty.
    pub(super) fn open(&self, user: &UserId, cx: &Context<'_>) -> Result<Book> {
        let mut account = cx.get(&self.tables.accounts, user)?.unwrap_or_default();
        account.tier = self.tier_name(&account);
        Ok(Book { user: user.clone(), tier_told: account.tier.clone(), account })
    }

    /// Looks at tier and badges, and keeps the account.
    pub(super) fn close(&self, mut book: Book, cx: &mut Context<'_>) -> Result<()> {
        self.look(&mut book, cx)?;
        cx.put(&self.tables.accounts, &book.user, &book.account)
    }

    /// Tells of the tier where it changed since the last look, and awards badges. Once an event, after all of its
    /// entries, so that an event that leads through several tiers tells of the highest.
    pub(super) fn look(&self, book: &mut Book, cx: &mut Context<'_>) -> Result<()> {
        let tier = self.tier_name(&book.account);
        if tier != book.tier_told {
            let (kind, verb) =
                if self.rules.reaches(&tier, &book.tier_told) { ("tier_upgraded", "reached") } else { ("tier_downgraded", "is now") };
            let data = json!({"from": book.tier_told, "to": tier, "lifetime_points": book.account.lifetime_points,
                "benefits": self.rules.benefits(&tier)});
            self.notify(book, kind, format!("Tier {verb} {tier}"), data, cx)?;
            book.tier_told.clone_from(&tier);
            self.await_birthday(book, cx)?;
        }
        book.account.tier = tier;
        self.award_badges(book, cx)
    }

    /// Writes one entry and emits it. The caller moves the lots.
    fn post(&self, book: &mut Book, entry: Entry, cx: &mut Context<'_>) -> Result<()> {
        let too_many = || Error::reject(format!("{}: more points than can be counted", entry.id));
        let account = &mut book.account;
        account.balance = account.balance.checked_add(entry.points).ok_or_else(too_many)?;
        account.lifetime_points = account.lifetime_points.checked_add(entry.lifetime).ok_or_else(too_many)?;
        account.tier = self.tier_name(account);
        account.serial += 1;
        let stored = StoredEntry {
            entry_id: entry.id,
            kind: entry.kind,
            points: entry.points,
            lifetime_change: entry.lifetime,
            balance: account.balance,
            lifetime_points: account.lifetime_points,
            tier: account.tier.clone(),
            order_id: entry.order_id,
            command_id: entry.command_id,
            note: entry.note,
            at: cx.now(),
        };
        cx.put(&self.tables.ledger, &(book.user.clone(), u64::MAX - account.serial), &stored)?;
        cx.emit(&self.updates, stored.update(book.user.clone()))
    }

    /// Writes an entry that changes no balance.
    pub(super) fn write(&self, book: &mut Book, entry: Entry, cx: &mut Context<'_>) -> Result<()> {
        debug_assert!(entry.points == 0, "points move lots: gain or lose");
        self.post(book, entry, cx)
    }

    /// Writes an entry that adds to the balance. What is left after a negative balance is filled becomes a lot, which
    /// expires as configured.
    pub(super) fn gain(&self, book: &mut Book, entry: Entry, cx: &mut Context<'_>) -> Result<Option<LotId>> {
        let expires_at = match self.rules.expiry.days {
            0 => NEVER,
            days => cx.now().plus(super::settings::DAY * days).millis(),
        };
        self.gain_until(book, entry, expires_at, cx)
    }

    /// As [`Loyalty::gain`], with points that expire at `expires_at`.
    pub(super) fn gain_until(&self, book: &mut Book, entry: Entry, expires_at: i64, cx: &mut Context<'_>) -> Result<Option<LotId>> {
        // A bonus that came with an order is not what the order earned: a refund leaves it alone.
        let order_id = entry.order_id.clone().filter(|_| entry.kind != EntryKind::Bonus);
        let entry_id = entry.id.clone();
        let points = entry.points;
        self.post(book, entry, cx)?;
        let remaining = points.min(book.account.balance);
        if remaining <= 0 {
            return Ok(None);
        }
        let id = (expires_at, book.account.serial);
        let lot = Lot { remaining, entry_id, order_id, warned: false };
        cx.put(&self.tables.lots, &(book.user.clone(), id.0, id.1), &lot)?;
        self.await_expiry(&book.user, expires_at, cx)?;
        Ok(Some(id))
    }

    /// Writes an entry that takes from the balance: from the lot `first`, then from the oldest, and what no lot holds
    /// leaves the balance negative. Returns when the youngest of the points taken would have expired.
    pub(super) fn lose(&self, book: &mut Book, entry: Entry, first: Option<LotId>, cx: &mut Context<'_>) -> Result<Option<i64>> {
        let mut wanted = -entry.points;
        self.post(book, entry, cx)?;
        let mut youngest = None;
        let mut lots = Vec::new();
        if let Some((at, serial)) = first.filter(|_| wanted > 0) {
            let key = (book.user.clone(), at, serial);
            lots.extend(cx.get(&self.tables.lots, &key)?.map(|lot| (key, lot)));
        }
        let mut found: i64 = lots.iter().map(|(_, lot)| lot.remaining).sum();
        if found < wanted {
            cx.scan(&self.tables.lots, &book.user, |key, lot| {
                if first != Some((key.1, key.2)) {
                    found = found.saturating_add(lot.remaining);
                    lots.push((key, lot));
                }
                found < wanted
            })?;
        }
        for (key, mut lot) in lots {
            let taken = lot.remaining.min(wanted);
            if taken == 0 {
                break;
            }
            wanted -= taken;
            lot.remaining -= taken;
            youngest = youngest.max(Some(key.1));
            if lot.remaining == 0 {
                cx.delete(&self.tables.lots, &key);
            } else {
                cx.put(&self.tables.lots, &key, &lot)?;
            }
        }
        Ok(youngest)
    }

    /// Tells the user something.
    pub(super) fn notify(&self, book: &Book, kind: &str, title: String, data: Value, cx: &mut Context<'_>) -> Result<()> {
        let data = match data {
            Value::Object(fields) => fields,
            _ => Map::new(),
        };
        let notification = Notification { user_id: book.user.clone(), kind: kind.into(), title, data, at: cx.now() };
        cx.emit(&self.notifications, notification)
    }

    /// Name of the tier the account is in.
    pub(super) fn tier_name(&self, account: &Account) -> String {
        self.rules.tier(account).map(|t| t.name.clone()).unwrap_or_default()
    }

    /// The user's country, where it is known.
    pub(super) fn country(&self, user: &UserId, cx: &Context<'_>) -> Result<Option<String>> {
        Ok(cx.get(&self.tables.profiles, user)?.and_then(|p| p.country))
    }

    /// Whether the user lives in one of `countries`.
    pub(super) fn lives_in(&self, user: &UserId, countries: &[String], cx: &Context<'_>) -> Result<bool> {
        Ok(!countries.is_empty() && self.country(user, cx)?.is_some_and(|c| countries.contains(&c)))
    }

    /// The calendar month of `at` in the shop's zone, such as `2026-03`.
    pub(super) fn month(&self, at: Timestamp) -> String {
        let date = self.local(at);
        format!("{:04}-{:02}", date.year(), date.month())
    }

    /// `at` in the shop's zone; times are checked before they come here, so that no time is lost.
    pub(super) fn local(&self, at: Timestamp) -> jiff::Zoned {
        jiff::Timestamp::from_millisecond(at.millis()).unwrap_or(jiff::Timestamp::MIN).to_zoned(self.zone.clone())
    }
}
