//! Subscriptions, keyed by user: plans, what they entitle to, and the boxes they bring.
//!
//! - `plans` the plans sold, `calendar` when their periods begin, `lifecycle` what events and time make of a
//!   subscription, `proration` what a change is worth;
//! - `features` and `standing`: what a customer may do and why;
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
use lifecycle::{Status, Subscription};
use packing::Packing;
use plans::{PlanVersion, Plans};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use standing::{Beside, Grant, NO_STATUS, Standing};
use tillflow_engine_api::{Context, Declare, Error, Output, Processor, Result, Timer, TimerKind};
use tillflow_schemas::{
    CustomerSignal, Entitlements, Event, LoyaltyUpdate, Notification, SubscriptionAction, SubscriptionEvent, SubscriptionId, Timestamp,
    UserId,
};
use tillflow_state::Table;

/// Name of the table of entitlements as last emitted, `UserId → Entitled`: for processors that gate something.
pub const ENTITLED: &str = "subscriptions.entitled";

/// Subscriptions kept of a customer; the oldest that is over goes first.
const SUBSCRIPTIONS_KEPT: usize = 50;
/// Events of a customer that wait to take effect, at most.
const SCHEDULED_KEPT: usize = 50;

/// What is kept of a customer beside subscriptions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Member {
    /// The loyalty tier.
    tier: String,
    /// Numbers what arrives.
    arrivals: u64,
    /// When a higher plan was last suggested.
    suggested_at: Option<Timestamp>,
}

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
            Event::Subscription(event) if event.effective() > cx.now() => self.schedule(event, cx),
            Event::Subscription(event) => self.apply(event, event.effective(), cx),
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
    /// Keeps an event until it takes effect.
    fn schedule(&self, event: &SubscriptionEvent, cx: &mut Context<'_>) -> Result<()> {
        if !event.plan_id.as_str().is_empty() {
            self.rules.plans.sold(&event.plan_id, cx)?;
        }
        let user = &event.user_id;
        if cx.rows(&self.tables.scheduled, user)?.len() >= SCHEDULED_KEPT {
            return Err(Error::reject(format!("effective_at: {SCHEDULED_KEPT} events of this customer already wait to take effect")));
        }
        let at = event.effective();
        let text = serde_json::to_string(event).map_err(|e| Error::reject(format!("can't be kept until {at}: {e}")))?;
        let number = self.arrival(user, cx)?;
        cx.put(&self.tables.scheduled, &(user.clone(), at.millis(), number), &text)?;
        cx.set_timer(self.timers.effect, user.as_str(), &number.to_string(), at)
    }

    /// Applies the first event that is due; each has a timer of its own.
    fn take_effect(&self, user: &UserId, cx: &mut Context<'_>) -> Result<()> {
        let mut first = None;
        cx.scan(&self.tables.scheduled, &user.clone(), |key, text| {
            first = Some((key, text));
            false
        })?;
        let Some((key, text)) = first else { return Ok(()) };
        cx.delete(&self.tables.scheduled, &key);
        let event: SubscriptionEvent = serde_json::from_str(&text).map_err(|e| Error::reject(format!("a scheduled event: {e}")))?;
        self.apply(&event, cx.now(), cx)
    }

    /// Applies an event that takes effect at `at`.
    fn apply(&self, event: &SubscriptionEvent, at: Timestamp, cx: &mut Context<'_>) -> Result<()> {
        let plan = match event.plan_id.as_str() {
            "" if matches!(event.action, SubscriptionAction::Started { .. } | SubscriptionAction::Changed) => {
                return Err(Error::reject("plan_id is missing"));
            }
            "" => None,
            _ => Some(self.rules.plans.sold(&event.plan_id, cx)?),
        };
        let user = &event.user_id;
        let subscriptions = cx.rows(&self.tables.subscriptions, user)?;
        if let (SubscriptionAction::Started { trial_until }, Some(plan)) = (&event.action, &plan) {
            return self.start(event, plan.clone(), at, *trial_until, subscriptions, cx);
        }
        let Some((id, mut subscription)) = meant(event, subscriptions)? else {
            return Err(Error::reject("subscription_id: the customer has no subscription; `started` comes first"));
        };
        let (calendar, grace) = (&self.rules.calendar, self.rules.settings.grace());
        subscription.pass(at, calendar, grace);
        let refuse = |refusal: String| Error::reject(format!("subscription {id}: {refusal}"));
        match &event.action {
            SubscriptionAction::Started { .. } => {}
            SubscriptionAction::Changed => {
                if let Some(plan) = plan {
                    self.change(user, &id, &mut subscription, plan, at, cx)?;
                }
            }
            SubscriptionAction::Paused => subscription.pause().map_err(refuse)?,
            SubscriptionAction::Resumed => subscription.resume(at, calendar, grace).map_err(refuse)?,
            SubscriptionAction::Renewed => {
                let plan = self.renewed_plan(&subscription, plan, cx);
                subscription.renew(plan, at, calendar).map_err(refuse)?;
            }
            SubscriptionAction::PaymentFailed => subscription.fail_payment(at, calendar, grace),
            SubscriptionAction::Cancelled { at_period_end } => subscription.cancel(at, *at_period_end, calendar),
            SubscriptionAction::Skipped => {
                self.open_box(&subscription, at).map_err(refuse)?;
                subscription.skip_next = true;
            }
            SubscriptionAction::Swapped { from, to } => {
                self.open_box(&subscription, at).map_err(refuse)?;
                self.packing.swap(&mut subscription, from, to, cx).map_err(refuse)?;
            }
        }
        subscription.pass(cx.now(), calendar, grace);
        self.keep(user, &id, subscription, cx)
    }

    fn start(
        &self,
        event: &SubscriptionEvent,
        plan: PlanVersion,
        at: Timestamp,
        trial_until: Option<Timestamp>,
        subscriptions: Vec<((UserId, SubscriptionId), Subscription)>,
        cx: &mut Context<'_>,
    ) -> Result<()> {
        let user = &event.user_id;
        let id = match (&event.subscription_id, &event.event_id) {
            (Some(id), _) => id.clone(),
            (None, Some(event_id)) => event_id.as_str().into(),
            (None, None) => format!("{}@{at}", event.plan_id).into(),
        };
        let arrival = self.arrival(user, cx)?;
        let subscription = match subscriptions.iter().find(|((_, other), _)| *other == id).map(|(_, s)| s) {
            // The same start told again.
            Some(s) if s.started_at == at => return Ok(()),
            Some(s) if !s.is_over => {
                return Err(Error::reject(format!(
                    "subscription {id}: it is {} since {}; it can't start again",
                    s.status.name(),
                    s.started_at
                )));
            }
            Some(s) => s.restarted(plan, at, trial_until, arrival),
            None => {
                self.make_room(&subscriptions, cx)?;
                Subscription::started(plan, at, trial_until, arrival)
            }
        };
        let mut subscription = subscription;
        subscription.pass(cx.now(), &self.rules.calendar, self.rules.settings.grace());
        self.keep(user, &id, subscription, cx)
    }

    fn make_room(&self, subscriptions: &[((UserId, SubscriptionId), Subscription)], cx: &mut Context<'_>) -> Result<()> {
        if subscriptions.len() < SUBSCRIPTIONS_KEPT {
            return Ok(());
        }
        let over = subscriptions.iter().filter(|(_, s)| s.is_over).min_by_key(|(_, s)| (s.started_at, s.arrival));
        let (key, _) = over.ok_or_else(|| Error::reject(format!("the customer already has {SUBSCRIPTIONS_KEPT} subscriptions")))?;
        cx.delete(&self.tables.subscriptions, key);
        Ok(())
    }

    /// The plan that a renewal buys: the one it names, else the lower one that waits for it, else the same; each as
    /// sold now. A plan that is no longer sold goes on as it was bought.
    fn renewed_plan(&self, subscription: &Subscription, named: Option<PlanVersion>, cx: &Context<'_>) -> PlanVersion {
        let present = &subscription.upcoming.as_ref().map_or(&subscription.plan, |(plan, _)| plan).plan_id;
        // A renewal that names the plan the customer has, as most do, does not take back the change that waits for it.
        let named = named.filter(|plan| plan.plan_id != *present || subscription.next_plan.is_none());
        let sold = |id| self.rules.plans.sold(id, cx).ok();
        named
            .or_else(|| subscription.next_plan.as_ref().and_then(sold))
            .or_else(|| sold(present))
            .unwrap_or_else(|| subscription.plan.clone())
    }

    /// Moves to another plan: up at once, down with the next renewal. Says what it is worth.
    fn change(
        &self,
        user: &UserId,
        id: &SubscriptionId,
        subscription: &mut Subscription,
        plan: PlanVersion,
        at: Timestamp,
        cx: &mut Context<'_>,
    ) -> Result<()> {
        if subscription.is_over || subscription.status == Status::Cancelled {
            return Err(Error::reject(format!("subscription {id}: it is {} and can't be changed", subscription.status.name())));
        }
        if plan.plan_id == subscription.plan.plan_id {
            subscription.next_plan = None;
            return Ok(());
        }
        let (calendar, shop) = (&self.rules.calendar, &self.rules.shop);
        // Nothing is paid in a trial, so nothing has to wait; a plan of the same price has nothing to wait for.
        let is_at_once =
            subscription.status == Status::Trialing || proration::a_year(&plan, shop) >= proration::a_year(&subscription.plan, shop);
        let proration = if is_at_once { proration::due(subscription, &plan, at, calendar, shop) } else { tillflow_schemas::Money::ZERO };
        let data = json!({
            "subscription_id": id,
            "from": subscription.plan.plan_id,
            "to": plan.plan_id,
            "direction": if is_at_once { "upgrade" } else { "downgrade" },
            "effective_at": if is_at_once { at } else { subscription.paid_until(calendar).max(at) },
            "proration": proration.rounded(tillflow_schemas::minor_digits(shop.currency.as_deref().or(plan.currency.as_deref()))),
            "currency": shop.currency.as_ref().or(plan.currency.as_ref()),
        });
        let title = format!("Your plan changes to {}", plan.name);
        if is_at_once {
            subscription.upgrade(plan, at, calendar);
        } else {
            subscription.next_plan = Some(plan.plan_id);
        }
        self.notify(user, "plan_changed", title, data, cx)
    }

    /// Whether the next box can still be skipped or changed at `at`.
    fn open_box(&self, subscription: &Subscription, at: Timestamp) -> Result<(), String> {
        if subscription.is_over {
            return Err(format!("it is {}; there is no next box", subscription.status.name()));
        }
        let period = subscription.next_box;
        let closed = subscription.begins(period, &self.rules.calendar).minus(self.rules.settings.boxes.cut_off());
        if at > closed { Err(format!("the box of period {period} is closed to changes since {closed}")) } else { Ok(()) }
    }

    /// Packs the box that is due, or leaves it out.
    fn pack(&self, user: &UserId, id: &SubscriptionId, subscription: &mut Subscription, cx: &mut Context<'_>) -> Result<()> {
        let period = subscription.next_box;
        if !subscription.gets_boxes() || subscription.begins(period, &self.rules.calendar) > cx.now() {
            return Ok(());
        }
        if !subscription.skip_next {
            let beside = self.beside(user, cx)?;
            let features = standing::features(Some(subscription), &beside, &self.rules.settings.features);
            self.packing.begin(user, id, subscription, &features, cx)?;
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
            let at = subscription.begins(subscription.next_box, calendar).max(cx.now());
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

/// The subscription an event means (module documentation); `None` where the customer has none.
fn meant(
    event: &SubscriptionEvent,
    subscriptions: Vec<((UserId, SubscriptionId), Subscription)>,
) -> Result<Option<(SubscriptionId, Subscription)>> {
    let mut subscriptions: Vec<_> = subscriptions.into_iter().map(|((_, id), subscription)| (id, subscription)).collect();
    if let Some(named) = &event.subscription_id {
        let found = subscriptions.into_iter().find(|(id, _)| id == named);
        return found
            .map(Some)
            .ok_or_else(|| Error::reject(format!("subscription_id: the customer has no subscription '{named}'; `started` comes first")));
    }
    let names_plan = !matches!(event.action, SubscriptionAction::Changed) && !event.plan_id.as_str().is_empty();
    let is_of_plan = |s: &Subscription| s.plan.plan_id == event.plan_id || s.next_plan.as_ref() == Some(&event.plan_id);
    subscriptions.sort_by_key(|(_, s)| (names_plan && !is_of_plan(s), s.is_over, std::cmp::Reverse((s.started_at, s.arrival))));
    Ok(subscriptions.into_iter().next())
}
