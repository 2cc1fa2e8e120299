//! Referrals: both are paid at the referred user's first order.
//!
//! Referrer and referred live in different partitions. A sign-up that names a referrer asks that referrer's partition
//! whether they are a customer; a `refer` command asks the referred user's whether they have ordered yet.

use super::{
    Loyalty,
    ledger::{Book, Entry, command_entry},
    messages::Message,
    tables::Referral,
};
use serde_json::json;
use tillflow_engine_api::{Context, Result};
use tillflow_schemas::{EntryKind, OrderId, UserId};

impl Loyalty {
    /// A user signed up: points where configured, and the referrer is asked, if one is named.
    pub(super) fn signed_up(&self, user: &UserId, referrer: Option<&UserId>, cx: &mut Context<'_>) -> Result<()> {
        let mut book = self.open(user, cx)?;
        let points = self.rules.earning.signup_points;
        if points > 0 && !book.account.signed_up {
            book.account.signed_up = true;
            self.gain(&mut book, Entry::gain("signup", EntryKind::Bonus, points, "Signed up"), cx)?;
        }
        if let Some(referrer) = referrer {
            match self.why_not_refer(&book, referrer, cx)? {
                Some(reason) => self.refuse_referral(&book, referrer, &reason, cx)?,
                None => {
                    let first_order = self.first_order(user, cx)?;
                    let row = Referral { referrer_id: referrer.clone(), confirmed: false, first_order };
                    cx.put(&self.tables.referrals, user, &row)?;
                    let id = format!("claimed:{user}:{}", cx.now().millis());
                    self.tell(referrer.clone(), id, &Message::LoyaltyReferralClaimed { referred_id: user.clone() }, cx)?;
                }
            }
        }
        self.close(book, cx)
    }

    /// Why the user of `book` can't be referred by `referrer`, as far as this partition knows.
    fn why_not_refer(&self, book: &Book, referrer: &UserId, cx: &Context<'_>) -> Result<Option<String>> {
        if self.rules.referral.points == 0 {
            return Ok(Some("there are no referrals".into()));
        }
        if *referrer == book.user {
            return Ok(Some("nobody refers themselves".into()));
        }
        if book.account.had_ordered(cx.now()) {
            return Ok(Some(format!("{} has an order already", book.user)));
        }
        Ok(cx.get(&self.tables.referrals, &book.user)?.map(|_| format!("{} was referred before", book.user)))
    }

    fn refuse_referral(&self, book: &Book, referrer: &UserId, reason: &str, cx: &mut Context<'_>) -> Result<()> {
        let data = json!({"referrer_id": referrer, "reason": reason});
        self.notify(book, "referral_refused", format!("Referral refused: {reason}"), data, cx)
    }

    /// In the referrer's partition: only a customer can refer.
    pub(super) fn confirm_referral(&self, referrer: &UserId, referred: UserId, claim: &str, cx: &mut Context<'_>) -> Result<()> {
        let accepted = cx.get(&self.tables.accounts, referrer)?.is_some_and(|account| account.had_ordered(cx.now()));
        let id = format!("confirmed:{claim}");
        self.tell(referred, id, &Message::LoyaltyReferralAnswered { referrer_id: referrer.clone(), accepted }, cx)
    }

    /// In the referred user's partition: the referrer is a customer, or not. The first order may have come meanwhile.
    pub(super) fn referral_answered(&self, user: &UserId, referrer: &UserId, accepted: bool, cx: &mut Context<'_>) -> Result<()> {
        let Some(mut row) = cx.get(&self.tables.referrals, user)?.filter(|r| r.referrer_id == *referrer && !r.confirmed) else {
            return Ok(());
        };
        let mut book = self.open(user, cx)?;
        if accepted {
            row.confirmed = true;
            cx.put(&self.tables.referrals, user, &row)?;
            if let Some(order_id) = row.first_order.clone() {
                self.reward_referral(&mut book, &order_id, cx)?;
            }
        } else {
            cx.delete(&self.tables.referrals, user);
            self.refuse_referral(&book, referrer, &format!("{referrer} has no order yet"), cx)?;
        }
        self.close(book, cx)
    }

    /// The command `refer`, in the referrer's partition. Returns why not.
    pub(super) fn refer(&self, book: &Book, command_id: &str, referred: &UserId, cx: &mut Context<'_>) -> Result<Option<String>> {
        if self.rules.referral.points == 0 {
            return Ok(Some("there are no referrals".into()));
        }
        if *referred == book.user {
            return Ok(Some("nobody refers themselves".into()));
        }
        if book.account.orders == 0 {
            return Ok(Some(format!("{} has no order yet", book.user)));
        }
        let message = Message::LoyaltyReferred { referrer_id: book.user.clone(), command_id: command_id.into() };
        self.tell(referred.clone(), format!("referred:{}:{command_id}", book.user), &message, cx)?;
        Ok(None)
    }

    /// In the referred user's partition: a customer refers this user. What the user ordered after that may be known before
    /// the word has come from the other partition.
    pub(super) fn referred(&self, user: &UserId, referrer: UserId, command_id: String, cx: &mut Context<'_>) -> Result<()> {
        let mut book = self.open(user, cx)?;
        let refused = self.why_not_refer(&book, &referrer, cx)?;
        if refused.is_none() {
            let row = Referral { referrer_id: referrer.clone(), confirmed: true, first_order: None };
            cx.put(&self.tables.referrals, user, &row)?;
            if let Some(order_id) = self.first_order(user, cx)? {
                self.reward_referral(&mut book, &order_id, cx)?;
                self.close(book, cx)?;
            }
        }
        let id = format!("referred_answered:{user}:{command_id}");
        self.tell(referrer, id, &Message::LoyaltyReferredAnswered { referred_id: user.clone(), command_id, refused }, cx)
    }

    fn first_order(&self, user: &UserId, cx: &Context<'_>) -> Result<Option<OrderId>> {
        let mut first = None;
        cx.scan(&self.tables.orders, user, |(_, order_id): (UserId, OrderId), order| {
            if first.as_ref().is_none_or(|(at, _)| order.at < *at) {
                first = Some((order.at, order_id));
            }
            true
        })?;
        Ok(first.map(|(_, order_id)| order_id))
    }

    /// Back in the referrer's partition: the command is answered.
    pub(super) fn answer_refer(
        &self,
        user: &UserId,
        referred: &UserId,
        command_id: &str,
        refused: Option<String>,
        cx: &mut Context<'_>,
    ) -> Result<()> {
        let mut book = self.open(user, cx)?;
        let entry = match refused {
            Some(reason) => Entry::rejected(command_id, reason),
            None => {
                let note = format!("{} points, pending until the first order of {referred}", self.rules.referral.points);
                Entry::note(command_entry(command_id), EntryKind::Pending, note).answers(command_id)
            }
        };
        self.write(&mut book, entry, cx)?;
        self.close(book, cx)
    }

    /// The referred user's first order: both are paid, the referrer by the owner of that account.
    pub(super) fn reward_referral(&self, book: &mut Book, order_id: &OrderId, cx: &mut Context<'_>) -> Result<()> {
        let Some(row) = cx.get(&self.tables.referrals, &book.user)? else { return Ok(()) };
        if !row.confirmed {
            // The referrer's partition has not answered yet; its answer finds the order here.
            let row = Referral { first_order: Some(order_id.clone()), ..row };
            return cx.put(&self.tables.referrals, &book.user, &row);
        }
        let note = format!("Referred by {}", row.referrer_id);
        let entry = Entry::gain(format!("referral:{}", row.referrer_id), EntryKind::Bonus, self.rules.referral.points, note);
        self.gain(book, entry.of_order(order_id), cx)?;
        let message = Message::LoyaltyReferralEarned { referred_id: book.user.clone(), order_id: order_id.clone() };
        self.tell(row.referrer_id, format!("earned:{}", book.user), &message, cx)
    }

    /// In the referrer's partition: a user they referred has placed the first order.
    pub(super) fn referrer_earns(&self, user: &UserId, referred: &UserId, order_id: &OrderId, cx: &mut Context<'_>) -> Result<()> {
        let mut book = self.open(user, cx)?;
        let note = format!("Referred {referred}, whose first order is {order_id}");
        self.gain(&mut book, Entry::gain(format!("referral:{referred}"), EntryKind::Bonus, self.rules.referral.points, note), cx)?;
        self.close(book, cx)
    }
}
