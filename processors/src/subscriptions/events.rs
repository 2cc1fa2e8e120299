//! What an event does to the subscription it means.

use super::{
    Subscriptions,
    lifecycle::{Status, Subscription},
    plans::PlanVersion,
    proration,
};
use serde_json::json;
use std::cmp::Reverse;
use tillflow_engine_api::{Context, Error, Result};
use tillflow_schemas::{Money, SubscriptionAction, SubscriptionEvent, SubscriptionId, Timestamp, UserId, minor_digits};

/// Subscriptions kept of a customer; the oldest that is over goes first.
const SUBSCRIPTIONS_KEPT: usize = 50;
/// Events of a customer that wait to take effect, at most.
const SCHEDULED_KEPT: usize = 50;

type Rows = Vec<((UserId, SubscriptionId), Subscription)>;

impl Subscriptions {
    /// Keeps an event until it takes effect.
    pub(super) fn schedule(&self, event: &SubscriptionEvent, cx: &mut Context<'_>) -> Result<()> {
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
    pub(super) fn take_effect(&self, user: &UserId, cx: &mut Context<'_>) -> Result<()> {
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
    pub(super) fn apply(&self, event: &SubscriptionEvent, at: Timestamp, cx: &mut Context<'_>) -> Result<()> {
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
        subscriptions: Rows,
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

    fn make_room(&self, subscriptions: &Rows, cx: &mut Context<'_>) -> Result<()> {
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
        let proration = if is_at_once { proration::due(subscription, &plan, at, calendar, shop) } else { Money::ZERO };
        let data = json!({
            "subscription_id": id,
            "from": subscription.plan.plan_id,
            "to": plan.plan_id,
            "direction": if is_at_once { "upgrade" } else { "downgrade" },
            "effective_at": if is_at_once { at } else { subscription.paid_until(calendar).max(at) },
            "proration": proration.rounded(minor_digits(shop.currency.as_deref().or(plan.currency.as_deref()))),
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
}

/// The subscription an event means (module documentation); `None` where the customer has none.
fn meant(event: &SubscriptionEvent, subscriptions: Rows) -> Result<Option<(SubscriptionId, Subscription)>> {
    let mut subscriptions: Vec<_> = subscriptions.into_iter().map(|((_, id), subscription)| (id, subscription)).collect();
    if let Some(named) = &event.subscription_id {
        let found = subscriptions.into_iter().find(|(id, _)| id == named);
        return found
            .map(Some)
            .ok_or_else(|| Error::reject(format!("subscription_id: the customer has no subscription '{named}'; `started` comes first")));
    }
    let names_plan = !matches!(event.action, SubscriptionAction::Changed) && !event.plan_id.as_str().is_empty();
    let is_of_plan = |s: &Subscription| s.plan.plan_id == event.plan_id || s.next_plan.as_ref() == Some(&event.plan_id);
    subscriptions.sort_by_key(|(_, s)| (names_plan && !is_of_plan(s), s.is_over, Reverse((s.started_at, s.arrival))));
    Ok(subscriptions.into_iter().next())
}
