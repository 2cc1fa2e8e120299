//! When a step is due: one decision, in this order — condition, consent and suppression, holdout, cap — and its
//! record. Priority is the order in which timers of one moment fire.

use super::{
    built_in::{ABANDONED_CART, BIRTHDAY, ORDER_STANDS, PRICE_DROP, REVIEW_REQUEST, WIN_BACK},
    content::{self, Content},
    definition::{Campaign, Priority, Trigger},
    gate::{Released, cap_allows, held_out, quiet_until, trigger_id},
    runs::{Campaigns, History, Run, parse_detail},
};
use crate::email::{
    consent::{Contact, may_mail},
    facts::Facts,
    segments::Segments,
};
use serde_json::{Map, Value};
use tillflow_engine_api::{Context, Result, Timer};
use tillflow_schemas::{EmailResult, EmailTrigger, OrderId, Timestamp, UserId};

/// What is decided of a mail that is due.
enum Decision {
    Release { to: String },
    Dropped { status: &'static str, detail: String },
}

impl Campaigns {
    /// A step may be due.
    ///
    /// # Errors
    /// When the store fails, or the mail is too large.
    pub fn on_timer(
        &mut self,
        timer: &Timer,
        facts: &mut Facts,
        contact: Option<&Contact>,
        segments: &Segments,
        cx: &mut Context<'_>,
    ) -> Result<()> {
        let user = UserId::from(timer.key.as_str());
        let Some((id, subject)) = parse_detail(&timer.detail) else { return Ok(()) };
        let key = (user.clone(), id.to_owned(), subject.to_owned());
        let Some(mut run) = cx.get(&self.runs, &key)? else { return Ok(()) };
        let Some(campaign) = self.find(id, cx) else {
            // Switched off since.
            cx.delete(&self.runs, &key);
            facts.watched &= id != WIN_BACK;
            return Ok(());
        };
        if id == WIN_BACK
            && let Some(last) = facts.last_event.filter(|last| *last > run.start)
        {
            run = Run { start: last, cause: last.to_string(), step: 0, about: String::new() };
        }
        let Some(step) = campaign.steps.get(run.step as usize) else { return self.finish(&user, &campaign, subject, facts, cx) };
        let due = run.start + step.wait.get();
        if cx.now() < due {
            cx.put(&self.runs, &key, &run)?;
            return self.set(&user, &campaign, subject, due, cx);
        }
        let zone = Contact::zone(contact, self.shop.timezone.as_deref());
        if campaign.priority != Priority::Transactional
            && let Some(quiet) = &self.settings.quiet_hours
            && let Some(end) = quiet_until(quiet, &zone, cx.now())
        {
            return self.set(&user, &campaign, subject, end, cx);
        }
        let mut history = cx.get(&self.history, &user)?.unwrap_or_default();
        if run.step == 0 && !may_start(&campaign, &run, &history) {
            return self.finish(&user, &campaign, subject, facts, cx);
        }
        let Some(content) = self.condition(&user, &campaign, subject, &run, facts, contact, segments, cx)? else {
            return self.finish(&user, &campaign, subject, facts, cx);
        };
        if run.step == 0 && campaign.again_after.is_some() {
            history.start(&campaign.id, run.start);
        }
        self.decide(&user, &campaign, &run, content, contact, &mut history, cx)?;
        cx.put(&self.history, &user, &history)?;
        run.step += 1;
        let Some(next) = campaign.steps.get(run.step as usize) else { return self.finish(&user, &campaign, subject, facts, cx) };
        cx.put(&self.runs, &key, &run)?;
        self.set(&user, &campaign, subject, (run.start + next.wait.get()).max(cx.now()), cx)
    }

    /// The run is over.
    fn finish(&mut self, user: &UserId, campaign: &Campaign, subject: &str, facts: &mut Facts, cx: &mut Context<'_>) -> Result<()> {
        facts.watched &= campaign.id != WIN_BACK;
        if campaign.id == BIRTHDAY {
            facts.birthday = None;
        }
        self.end(user, campaign, subject, cx)
    }

    /// What the mail says, or `None` where there is no longer a reason for it.
    #[allow(clippy::too_many_arguments, reason = "a decision looks at all of them")]
    fn condition(
        &self,
        user: &UserId,
        campaign: &Campaign,
        subject: &str,
        run: &Run,
        facts: &Facts,
        contact: Option<&Contact>,
        segments: &Segments,
        cx: &Context<'_>,
    ) -> Result<Option<Content>> {
        if let Some(only) = &campaign.only
            && !segments.holds(only, user, facts, contact, cx)?
        {
            return Ok(None);
        }
        if let Trigger::Segment(name) = &campaign.trigger
            && !facts.segments.contains(name)
        {
            return Ok(None);
        }
        let about = serde_json::from_str::<Map<String, Value>>(&run.about).unwrap_or_default();
        Ok(match campaign.id.as_str() {
            ABANDONED_CART => {
                let Some(cart) = cx.get(&self.carts, user)? else { return Ok(None) };
                let ordered = facts.last_order.is_some_and(|at| at > run.start - ORDER_STANDS);
                (!ordered && !cart.items.is_empty()).then(|| content::cart(&cart, run.start, |id| cx.lookup(&self.products, id)))
            }
            REVIEW_REQUEST => {
                let Some(order) = cx.get(&self.orders, &(user.clone(), OrderId::from(subject)))? else { return Ok(None) };
                (!order.cancelled).then(|| content::review(subject, &order, |id| cx.lookup(&self.products, id)))
            }
            WIN_BACK => Some(content::win_back(run, cx.now(), self.settings.offer_code.as_deref())),
            PRICE_DROP => content::price_drop(about, |id| cx.lookup(&self.products, id)),
            id => Some(content::told(id, about, |id| cx.lookup(&self.products, id))),
        })
    }

    /// Consent, suppression, holdout, cap; then the mail is released, or it is said why not.
    #[allow(clippy::too_many_arguments, reason = "a decision looks at all of them")]
    fn decide(
        &self,
        user: &UserId,
        campaign: &Campaign,
        run: &Run,
        content: Content,
        contact: Option<&Contact>,
        history: &mut History,
        cx: &mut Context<'_>,
    ) -> Result<()> {
        let now = cx.now();
        let Some(step) = campaign.steps.get(run.step as usize) else { return Ok(()) };
        let trigger_id = trigger_id(user.as_str(), &campaign.id, run.step, &run.cause);
        match self.decision(user, campaign, run, contact, history, cx)? {
            Decision::Release { to } => {
                if campaign.priority != Priority::Transactional {
                    history.released = Some(Released { at: now, trigger_id: trigger_id.clone() });
                }
                let mut data = campaign.data.clone();
                data.extend(content.data);
                if let Some(name) = contact.and_then(|c| c.first_name.clone()) {
                    data.insert("first_name".into(), name.into());
                }
                let trigger = EmailTrigger {
                    trigger_id,
                    user_id: user.clone(),
                    campaign_id: campaign.id.as_str().into(),
                    template: step.template.clone(),
                    to,
                    data,
                    because: content.because,
                    send_after: now,
                };
                cx.emit(&self.triggers, trigger)
            }
            Decision::Dropped { status, detail } => {
                let detail = format!("{}: {detail}", campaign.id);
                let result = EmailResult { trigger_id, user_id: user.clone(), status: status.into(), provider_id: None, detail, at: now };
                cx.emit(&self.results, result)
            }
        }
    }

    fn decision(
        &self,
        user: &UserId,
        campaign: &Campaign,
        run: &Run,
        contact: Option<&Contact>,
        history: &History,
        cx: &Context<'_>,
    ) -> Result<Decision> {
        let dropped = |status, detail: String| Ok(Decision::Dropped { status, detail });
        if let Some(after) = campaign.drop_after
            && cx.now() > run.start + after.get()
        {
            return dropped("expired", format!("more than {after} after {}", run.start));
        }
        let suppressions = cx.get(&self.suppressions, user)?.unwrap_or_default();
        let to = match may_mail(contact, &suppressions) {
            Ok(to) => to.to_owned(),
            Err(why) => return dropped("suppressed", why.into()),
        };
        if held_out(user.as_str(), &campaign.id, campaign.holdout) {
            return dropped("suppressed", format!("held out: one of the {} % who never get it", campaign.holdout));
        }
        if campaign.priority != Priority::Transactional && !cap_allows(history.released.as_ref(), self.settings.cap, cx.now()) {
            let before = history.released.as_ref().map_or(Timestamp::MIN, |r| r.at);
            return dropped("capped", format!("a mail was released at {before}; one in {}", self.settings.cap));
        }
        Ok(Decision::Release { to })
    }
}

/// Whether the campaign may start again, so long after it last started.
fn may_start(campaign: &Campaign, run: &Run, history: &History) -> bool {
    let Some(after) = campaign.again_after else { return true };
    history.started.get(&campaign.id).is_none_or(|last| run.start >= *last + after.get())
}
