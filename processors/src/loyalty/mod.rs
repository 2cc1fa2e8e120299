//! Loyalty, keyed by user: points, tiers, the ledger, refunds, challenges, badges, rewards, spins, referrals.
//!
//! `balance` and `lifetime_points` are the sums of the ledger's entries at all times; the tier is the one they give.
//! Points that can be spent lie in lots, by when they expire: their sum is the balance, or nothing while a refund of
//! points already spent has left it negative.

mod account;
mod badges;
mod birthday;
mod challenges;
mod definition;
mod expiry;
mod ledger;
mod messages;
mod orders;
mod queries;
mod referral;
mod refunds;
mod reviews;
mod rewards;
mod settings;
mod spin;
mod tables;
#[cfg(test)]
mod tests;
mod tiers;

pub use account::{ACCOUNTS, Account, accounts};
pub use badges::{BadgeRule, Measure};
pub use challenges::{ChallengeRule, Goal, THREE_PURCHASES};
pub use definition::problem;
pub use rewards::RewardRule;
pub use settings::{
    BirthdaySettings, DEVELOPMENT_SECRET, EarningRule, EarningSettings, ExpirySettings, LoyaltySettings, Prize, ReferralSettings,
    SpinSettings, TierBy,
};
pub use tiers::{Factor, Tier, benefits};

use crate::{shop::ShopSettings, shopper::EarlyRefunds};
use jiff::tz::TimeZone;
use std::{collections::BTreeMap, sync::Arc};
use tables::Tables;
use tillflow_engine_api::{Context, Declare, Global, Output, Processor, Result, Timer, TimerKind};
use tillflow_schemas::{
    Badge, Challenge, Customer, CustomerSignal, Event, LoyaltyCommand, LoyaltyUpdate, Notification, Product, Reward, UserEvent,
    UserEventKind, UserId,
};

/// The loyalty programme.
pub struct Loyalty {
    rules: Arc<LoyaltySettings>,
    /// Built in and configured, as are the badges.
    challenges: Vec<(String, ChallengeRule)>,
    badges: BTreeMap<String, BadgeRule>,
    shop: ShopSettings,
    /// Months and birthdays are the shop's.
    zone: TimeZone,
    tables: Tables,
    early: EarlyRefunds,
    updates: Output<LoyaltyUpdate>,
    notifications: Output<Notification>,
    signals: Output<CustomerSignal>,
    products: Global<Product>,
    reward_records: Global<Reward>,
    challenge_records: Global<Challenge>,
    badge_records: Global<Badge>,
    /// The next lot to warn of or to expire; one a user.
    expiry_timer: TimerKind,
    /// The end of an order's return window.
    release_timer: TimerKind,
    birthday_timer: TimerKind,
    /// Days since the first order, by badge.
    veteran_timer: TimerKind,
}

impl Processor for Loyalty {
    fn declare(d: &mut Declare<'_>) -> Self {
        let rules = Arc::new(d.settings::<LoyaltySettings>("loyalty"));
        rules.problems().into_iter().for_each(|p| d.problem(p));
        let shop = d.settings::<ShopSettings>("shop");
        let zone = match shop.timezone.as_deref().map(TimeZone::get) {
            None => TimeZone::UTC,
            Some(Ok(zone)) => zone,
            Some(Err(e)) => {
                d.problem(format!("shop.timezone: {e}"));
                TimeZone::UTC
            }
        };
        d.input::<UserEvent>();
        d.input::<LoyaltyCommand>();
        d.input::<Customer>();
        d.input::<CustomerSignal>();
        d.check(rewards::check);
        d.check(challenges::check);
        d.check(badges::check);
        let tables = Tables::declare(d);
        queries::declare(d, tables, &rules);
        Self {
            challenges: challenges::configured(&rules.challenges),
            badges: badges::configured(&rules.badges),
            rules,
            shop,
            zone,
            tables,
            early: EarlyRefunds::read(d),
            updates: d.output(),
            notifications: d.output(),
            signals: d.output(),
            products: d.global(),
            reward_records: d.global(),
            challenge_records: d.global(),
            badge_records: d.global(),
            expiry_timer: d.timer("loyalty.expiry"),
            release_timer: d.timer("loyalty.release"),
            birthday_timer: d.timer("loyalty.birthday"),
            veteran_timer: d.timer("loyalty.veteran"),
        }
    }

    fn process(&mut self, event: &Event, cx: &mut Context<'_>) -> Result<()> {
        match event {
            Event::User(event) => self.shop_event(event, cx),
            Event::Command(command) => self.obey(command, cx),
            Event::Customer(change) => self.meet(change, cx),
            Event::CustomerSignal(signal) => self.hear(signal, cx),
            _ => Ok(()),
        }
    }

    fn on_timer(&mut self, timer: &Timer, cx: &mut Context<'_>) -> Result<()> {
        let user = UserId::from(timer.key.as_str());
        if timer.is(self.expiry_timer) {
            self.expire(&user, cx)
        } else if timer.is(self.release_timer) {
            self.release(&user, &timer.detail.as_str().into(), cx)
        } else if timer.is(self.birthday_timer) {
            self.celebrate(&user, cx)
        } else if timer.is(self.veteran_timer) {
            self.come_of_age(&user, cx)
        } else {
            Ok(())
        }
    }
}

impl Loyalty {
    /// Only known users take part: guests and anonymous visitors have no account.
    fn shop_event(&self, event: &UserEvent, cx: &mut Context<'_>) -> Result<()> {
        let Some(user) = &event.user_id else { return Ok(()) };
        match &event.kind {
            UserEventKind::OrderCompleted(order) => self.earn(user, order, cx),
            UserEventKind::OrderRefunded(refund) => self.refund(user, event, refund, cx),
            UserEventKind::OrderCancelled { order_id } => self.cancel(user, order_id, cx),
            UserEventKind::ProductReviewed { product_id, .. } => self.review(user, product_id, cx),
            UserEventKind::SignedUp { referrer_id } => self.signed_up(user, referrer_id.as_ref(), cx),
            _ => Ok(()),
        }
    }
}
