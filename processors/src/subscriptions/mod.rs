//! Subscriptions, keyed by user: plans, what they entitle to, and the boxes they bring.
//!
//! - `plans` the plans sold, `calendar` when their periods begin, `lifecycle` what becomes of a subscription, `events`
//!   what an event does to the one it means, `proration` what a change is worth;
//! - `features` and `standing`: what a customer may do and why;
//! - `signals` grants and denied answers, `queries` the answers;
//! - `boxes` the draw, `packing` a box from its draw to its contents, `stock` the one who grants products to boxes.
//!
//! Entitlements depend on the customer's subscription events, tier, grants and timers alone, so any two runs over the
//! same records emit the same ones. Boxes depend on the stock "now".
//!
//! An event without `subscription_id`: `started` takes its `event_id` as the subscription's id, else
//! `PLAN@EFFECTIVE_TIME`; all others mean the newest subscription of the plan they name, if there is one, else the newest
//! of all, one that is not over before one that is (`changed` names the new plan, so it means the newest). Events are
//! applied in the order in which they arrive; one that takes effect later is kept until then.

pub mod boxes;
pub mod calendar;
mod events;
pub mod features;
pub mod lifecycle;
mod packing;
pub mod plans;
pub mod proration;
mod queries;
mod settings;
mod signals;
pub mod standing;
mod stock;
#[cfg(test)]
mod tests;

pub use settings::{BoxSettings, SubscriptionSettings};
pub use standing::Entitled;
pub use stock::BoxStock;

use crate::{loyalty::LoyaltySettings, shop::ShopSettings};
use calendar::Calendar;
use lifecycle::Subscription;
use packing::Packing;
use plans::Plans;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use standing::{Beside, Grant, NO_STATUS, Standing};
use std::time::Duration;
use tillflow_engine_api::{Context, Declare, Output, Processor, Result, Timer, TimerKind};
use tillflow_schemas::{
    CustomerSignal, Entitlements, Event, LoyaltyUpdate, Notification, SubscriptionEvent, SubscriptionId, Timestamp, UserId,
};
use tillflow_state::Table;

/// Name of the table of entitlements as last emitted, `UserId → Entitled`: for processors that gate something.
pub const ENTITLED: &str = "subscriptions.entitled";

/// When to look for products again after there was none at all for a box; until then the customer has paid for nothing.
const FIRST_LOOK_AGAIN: Duration = Duration::from_secs(3600);
/// And each time after that, until the next period begins.
const LOOK_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// What is kept of a customer beside subscriptions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Member {
    /// The loyalty tier.
    tier: String,
    /// Numbers what arrives.
    arrivals: u64,
    /// When a higher plan was last suggested.
    suggested_at: Option<Timestamp>,
    /// Ids of the last events taken, by which who sent one sees that it was.
    taken: Vec<String>,
}

/// Ids of events that are remembered as taken.
const TAKEN: usize = 16;

/// The tables; a query reads them too.
#[derive(Clone, Copy)]
struct Tables {
    subscriptions: Table<(UserId, SubscriptionId), Subscription>,
    members: Table<UserId, Member>,
    grants: Table<(UserId, String), Grant>,
    /// Events that have not taken effect, as JSON: by time, then arrival.
    scheduled: Table<(UserId, i64, u64), String>,
    entitled: Table<UserId, Entitled>,
}

#[derive(Clone, Copy)]
struct Timers {
    /// Time makes something of a subscription.
    life: TimerKind,
    /// A box's period begins.
    box_due: TimerKind,
    /// A grant ends.
    grant_end: TimerKind,
    /// A scheduled event takes effect.
    effect: TimerKind,
}

/// Plans, entitlements and boxes.
pub struct Subscriptions {
    rules: Rules,
    tables: Tables,
    timers: Timers,
    packing: Packing,
    entitlements: Output<Entitlements>,
    notifications: Output<Notification>,
}

/// What is configured; a query needs it too.
#[derive(Clone)]
struct Rules {
    settings: SubscriptionSettings,
    shop: ShopSettings,
    loyalty: LoyaltySettings,
    calendar: Calendar,
    plans: Plans,
}

impl Processor for Subscriptions {
    fn declare(d: &mut Declare<'_>) -> Self {
        d.input::<SubscriptionEvent>();
        d.input::<CustomerSignal>();
        d.follow::<LoyaltyUpdate>();
        let settings = SubscriptionSettings::read(d);
        let shop: ShopSettings = d.settings("shop");
        let calendar = Calendar::new(settings::zone(&shop, d));
        plans::check_currencies(&settings.plans, &shop, d);
        let plans = Plans::new(d.global(), &settings, shop.clone());
        let tables = Tables {
            subscriptions: d.store("subscriptions.subscriptions"),
            members: d.store("subscriptions.members"),
            grants: d.store("subscriptions.grants"),
            scheduled: d.store("subscriptions.scheduled"),
            entitled: d.store(ENTITLED),
        };
        let timers = Timers {
            life: d.timer("subscriptions.life"),
            box_due: d.timer("subscriptions.box_due"),
            grant_end: d.timer("subscriptions.grant_end"),
            effect: d.timer("subscriptions.effect"),
        };
        let notifications = d.output();
        let packing = Packing::declare(d, settings.boxes.clone(), notifications);
        let rules = Rules { settings, shop, loyalty: d.settings("loyalty"), calendar, plans };
        queries::declare(d, &rules, tables, &packing);
        Self { rules, tables, timers, packing, entitlements: d.output(), notifications }
    }

    fn process(&mut self, event: &Event, cx: &mut Context<'_>) -> Result<()> {
        match event {
            Event::Subscription(event) => {
                if event.effective() > cx.now() {
                    self.schedule(event, cx)?;
                } else {
                    self.apply(event, event.effective(), cx)?;
                }
                self.note_taken(event, cx)
            }
            Event::LoyaltyUpdate(update) => self.take_tier(update, cx),
            Event::CustomerSignal(signal) => self.hear(signal, cx),
            _ => Ok(()),
        }
    }

    fn on_timer(&mut self, timer: &Timer, cx: &mut Context<'_>) -> Result<()> {
        let user = UserId::from(timer.key.as_str());
        if timer.is(self.timers.effect) {
            return self.take_effect(&user, cx);
        }
        if timer.is(self.timers.grant_end) {
            cx.delete(&self.tables.grants, &(user.clone(), timer.detail.clone()));
            return self.entitle(&user, cx);
        }
        let id = SubscriptionId::from(timer.detail.as_str());
        let Some(mut subscription) = cx.get(&self.tables.subscriptions, &(user.clone(), id.clone()))? else { return Ok(()) };
        subscription.pass(cx.now(), &self.rules.calendar, self.rules.settings.grace());
        if timer.is(self.timers.box_due) {
            self.pack(&user, &id, &mut subscription, cx)?;
        }
        self.keep(&user, &id, subscription, cx)
    }
}

impl Subscriptions {
    /// Packs the box that is due, or leaves it out.
    fn pack(&self, user: &UserId, id: &SubscriptionId, subscription: &mut Subscription, cx: &mut Context<'_>) -> Result<()> {
        let period = subscription.next_box;
        if !subscription.gets_boxes() || subscription.box_due(&self.rules.calendar) > cx.now() {
            return Ok(());
        }
        if !subscription.skip_next {
            let beside = self.beside(user, cx)?;
            let features = standing::features(Some(subscription), &beside, &self.rules.settings.features);
            if !self.packing.begin(user, id, subscription, &features, cx)? {
                let wait = if subscription.look_again.is_none() { FIRST_LOOK_AGAIN } else { LOOK_AGAIN };
                subscription.look_again = Some(cx.now() + wait);
                return Ok(());
            }
        }
        subscription.finish_box(period.saturating_add(1));
        Ok(())
    }

    /// Stores a subscription, sets its timers, and says what the customer may do now.
    fn keep(&self, user: &UserId, id: &SubscriptionId, mut subscription: Subscription, cx: &mut Context<'_>) -> Result<()> {
        let calendar = &self.rules.calendar;
        subscription.forgo_boxes_before(cx.now(), calendar);
        match subscription.next_change(calendar) {
            Some(at) => cx.set_timer(self.timers.life, user.as_str(), id.as_str(), at)?,
            None => cx.cancel_timer(self.timers.life, user.as_str(), id.as_str())?,
        }
        if subscription.gets_boxes() {
            let at = subscription.box_due(calendar).max(cx.now());
            cx.set_timer(self.timers.box_due, user.as_str(), id.as_str(), at)?;
        } else {
            cx.cancel_timer(self.timers.box_due, user.as_str(), id.as_str())?;
        }
        cx.put(&self.tables.subscriptions, &(user.clone(), id.clone()), &subscription)?;
        self.entitle(user, cx)
    }

    /// Emits entitlements if they are others than before.
    fn entitle(&self, user: &UserId, cx: &mut Context<'_>) -> Result<()> {
        let standing = self.standing(user, cx)?;
        let before = cx.get(&self.tables.entitled, user)?;
        let now = standing.entitled(before.as_ref(), cx.now());
        let is_nothing = now.status == NO_STATUS && now.features.is_empty();
        if before.as_ref() == Some(&now) || (before.is_none() && is_nothing) {
            return Ok(());
        }
        cx.put(&self.tables.entitled, user, &now)?;
        let features = standing.features.into_iter().map(|(feature, given)| (feature, given.value)).collect();
        let emitted =
            Entitlements { user_id: user.clone(), plan_id: now.plan_id, status: now.status, features, since: now.since, until: now.until };
        cx.emit(&self.entitlements, emitted)
    }

    fn standing(&self, user: &UserId, cx: &Context<'_>) -> Result<Standing> {
        let subscriptions: Vec<_> =
            cx.rows(&self.tables.subscriptions, user)?.into_iter().map(|((_, id), subscription)| (id, subscription)).collect();
        Ok(Standing::of(&subscriptions, &self.beside(user, cx)?, &self.rules.settings.features, &self.rules.calendar))
    }

    fn beside(&self, user: &UserId, cx: &Context<'_>) -> Result<Beside> {
        let tier = cx.get(&self.tables.members, user)?.unwrap_or_default().tier;
        let grants = cx.rows(&self.tables.grants, user)?.into_iter().map(|((_, feature), grant)| (feature, grant)).collect();
        Ok(Beside { benefits: self.rules.loyalty.benefits(&tier), tier, grants })
    }

    fn take_tier(&self, update: &LoyaltyUpdate, cx: &mut Context<'_>) -> Result<()> {
        let mut member = cx.get(&self.tables.members, &update.user_id)?.unwrap_or_default();
        if member.tier == update.tier {
            return Ok(());
        }
        member.tier.clone_from(&update.tier);
        cx.put(&self.tables.members, &update.user_id, &member)?;
        self.entitle(&update.user_id, cx)
    }

    fn note_taken(&self, event: &SubscriptionEvent, cx: &mut Context<'_>) -> Result<()> {
        let Some(id) = &event.event_id else { return Ok(()) };
        let mut member = cx.get(&self.tables.members, &event.user_id)?.unwrap_or_default();
        if member.taken.len() >= TAKEN {
            member.taken.remove(0);
        }
        member.taken.push(id.clone());
        cx.put(&self.tables.members, &event.user_id, &member)
    }

    /// The number of something of the customer that arrives.
    fn arrival(&self, user: &UserId, cx: &mut Context<'_>) -> Result<u64> {
        let mut member = cx.get(&self.tables.members, user)?.unwrap_or_default();
        member.arrivals += 1;
        cx.put(&self.tables.members, user, &member)?;
        Ok(member.arrivals)
    }

    fn notify(&self, user: &UserId, kind: &str, title: String, data: Value, cx: &mut Context<'_>) -> Result<()> {
        let data = match data {
            Value::Object(data) => data,
            _ => Map::new(),
        };
        let at = cx.now();
        cx.emit(&self.notifications, Notification { user_id: user.clone(), kind: kind.to_owned(), title, data, at })
    }
}
