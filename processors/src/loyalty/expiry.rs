//! Points expire by lot, oldest first, and their owner is warned before. One timer a user: the next thing due.

use super::{
    Loyalty,
    ledger::Entry,
    settings::DAY,
    tables::{Lot, LotId, NEVER},
};
use serde_json::json;
use tillflow_engine_api::{Context, Result};
use tillflow_schemas::{EntryKind, Timestamp, UserId};

impl Loyalty {
    fn warn_at(&self, expires_at: i64) -> i64 {
        Timestamp::from_millis(expires_at).minus(DAY * self.rules.expiry.warn_days).millis()
    }

    /// Has the timer fire when a lot that expires at `expires_at` is to be warned of, unless it fires before.
    pub(super) fn await_expiry(&self, user: &UserId, expires_at: i64, cx: &mut Context<'_>) -> Result<()> {
        if expires_at == NEVER {
            return Ok(());
        }
        let due = Timestamp::from_millis(self.warn_at(expires_at));
        match cx.timer_at(self.expiry_timer, user.as_str(), "")? {
            Some(set) if set <= due => Ok(()),
            _ => cx.set_timer(self.expiry_timer, user.as_str(), "", due),
        }
    }

    /// Warns and expires what is due, and sets the timer for what comes next.
    pub(super) fn expire(&self, user: &UserId, cx: &mut Context<'_>) -> Result<()> {
        let now = cx.now().millis();
        let (mut expired, mut warned, mut next) = (Vec::new(), Vec::new(), None);
        cx.scan(&self.tables.lots, user, |(_, at, serial), lot| {
            if at == NEVER {
                return false;
            }
            if at <= now {
                expired.push(((at, serial), lot));
                return true;
            }
            next.get_or_insert(at);
            if lot.warned {
                return true;
            }
            let due = self.warn_at(at);
            if due <= now {
                warned.push(((at, serial), lot));
                return true;
            }
            next = next.min(Some(due));
            false
        })?;
        if self.rules.expiry.days == 0 || self.lives_in(user, &self.rules.expiry.off_countries, cx)? {
            for (id, lot) in expired.into_iter().chain(warned) {
                self.keep_for_ever(user, id, lot, cx)?;
            }
        } else {
            if !expired.is_empty() || !warned.is_empty() {
                self.expire_and_warn(user, expired, warned, cx)?;
            }
        }
        match next {
            Some(at) => cx.set_timer(self.expiry_timer, user.as_str(), "", Timestamp::from_millis(at)),
            None => Ok(()),
        }
    }

    fn expire_and_warn(&self, user: &UserId, expired: Vec<(LotId, Lot)>, warned: Vec<(LotId, Lot)>, cx: &mut Context<'_>) -> Result<()> {
        let mut book = self.open(user, cx)?;
        for (id, lot) in expired {
            let entry = Entry {
                points: -lot.remaining,
                order_id: lot.order_id.clone(),
                ..Entry::note(format!("expire:{}", lot.entry_id), EntryKind::Expire, format!("{} points expired", lot.remaining))
            };
            self.lose(&mut book, entry, Some(id), cx)?;
            let Some(order_id) = lot.order_id else { continue };
            let key = (user.clone(), order_id);
            if let Some(mut order) = cx.get(&self.tables.orders, &key)? {
                order.expired += lot.remaining;
                cx.put(&self.tables.orders, &key, &order)?;
            }
        }
        for (id, mut lot) in warned {
            lot.warned = true;
            cx.put(&self.tables.lots, &(user.clone(), id.0, id.1), &lot)?;
            let at = Timestamp::from_millis(id.0);
            let data = json!({"points": lot.remaining, "expires_at": at, "entry_id": lot.entry_id});
            self.notify(&book, "points_expiring", format!("{} points expire on {}", lot.remaining, self.local(at).date()), data, cx)?;
        }
        self.close(book, cx)
    }

    fn keep_for_ever(&self, user: &UserId, (at, serial): LotId, lot: Lot, cx: &mut Context<'_>) -> Result<()> {
        if let Some(order_id) = &lot.order_id {
            let key = (user.clone(), order_id.clone());
            if let Some(mut order) = cx.get(&self.tables.orders, &key)? {
                order.lot = Some((NEVER, serial));
                cx.put(&self.tables.orders, &key, &order)?;
            }
        }
        cx.delete(&self.tables.lots, &(user.clone(), at, serial));
        cx.put(&self.tables.lots, &(user.clone(), NEVER, serial), &lot)
    }
}
