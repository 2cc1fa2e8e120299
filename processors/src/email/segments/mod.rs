//! Segments, live: joined by what a user does, left by timers when time passes. A record of `segments` is emitted
//! whenever the set changes, and only then.

mod built_in;
mod own;
mod purchases;
#[cfg(test)]
mod tests;
pub mod views;

pub use built_in::{CART_DROPPED, CART_LEFT, Membership, membership};
pub use own::{check, problems};
pub use purchases::{Purchase, Purchases};
pub use views::{Viewed, Views};

use super::{
    consent::Contact,
    definitions::Subject,
    facts::Facts,
    settings::{EmailSettings, SegmentSettings},
};
use own::OwnSegments;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tillflow_engine_api::{Context, Declare, Output, Query, Result, TimerKind};
use tillflow_schemas::{Timestamp, UserId};
use tillflow_state::Table;

/// The last change of a user's segments, as published.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Published {
    segments: Vec<String>,
    entered: Vec<String>,
    left: Vec<String>,
    at: Timestamp,
}

/// Keeps each user's segments right.
pub struct Segments {
    rules: SegmentSettings,
    own: OwnSegments,
    published: Table<UserId, Published>,
    views: Table<UserId, Views>,
    /// Orders and refunds.
    pub purchases: Purchases,
    output: Output<tillflow_schemas::Segments>,
    timer: TimerKind,
}

impl Segments {
    /// Declares tables, output, timer and the query `segments`.
    pub fn declare(d: &mut Declare<'_>, settings: &EmailSettings) -> Self {
        let published: Table<UserId, Published> = d.store("email.segments");
        d.query("segments", move |q| answer(&published, q).map(Some));
        Self {
            rules: settings.segments.clone(),
            own: OwnSegments::declare(d, settings),
            published,
            views: d.store("email.views"),
            purchases: Purchases::declare(d, settings.segments.spend_window),
            output: d.output(),
            timer: d.timer("email.segments"),
        }
    }

    /// The timer that fires when time may have changed them.
    pub fn timer(&self) -> TimerKind {
        self.timer
    }

    /// The products a user has looked at.
    ///
    /// # Errors
    /// When the store fails.
    pub fn views(&self, user: &UserId, cx: &Context<'_>) -> Result<Views> {
        Ok(cx.get(&self.views, user)?.unwrap_or_default())
    }

    /// Stores what a user has looked at, and what follows for `repeat_viewer`.
    ///
    /// # Errors
    /// When the store fails.
    pub fn put_views(&self, user: &UserId, views: &Views, facts: &mut Facts, cx: &mut Context<'_>) -> Result<()> {
        self.recount(views, facts);
        cx.put(&self.views, user, views)
    }

    /// Brings the segments up to `facts.clock`, publishes them if they changed, and sets the timer to when time may
    /// change them. Returns those entered.
    ///
    /// # Errors
    /// When the store fails.
    pub fn refresh(&mut self, user: &UserId, facts: &mut Facts, contact: Option<&Contact>, cx: &mut Context<'_>) -> Result<Vec<String>> {
        let now = facts.clock;
        self.purchases.expire(user, facts, cx)?;
        if facts.repeat_changes.is_some_and(|at| at <= now) {
            let views = self.views(user, cx)?;
            self.recount(&views, facts);
        }
        let built_in = membership(facts, contact, &self.rules, now).sorted();
        let membership = self.with_own(user, built_in, facts, contact, cx)?;

        if let Some(at) = membership.changes
            && facts.recheck.is_none_or(|set| set <= now || set > at)
        {
            cx.set_timer(self.timer, user.as_str(), "", at)?;
            facts.recheck = Some(at);
        }
        if membership.names == facts.segments {
            return Ok(Vec::new());
        }
        let missing = |from: &[String], of: &[String]| from.iter().filter(|n| of.binary_search(n).is_err()).cloned().collect::<Vec<_>>();
        let entered = missing(&membership.names, &facts.segments);
        let left = missing(&facts.segments, &membership.names);
        facts.segments.clone_from(&membership.names);
        let published = Published { segments: membership.names, entered: entered.clone(), left, at: now };
        cx.put(&self.published, user, &published)?;
        let Published { segments, entered: in_, left, at } = published;
        cx.emit(&self.output, tillflow_schemas::Segments { user_id: user.clone(), segments, entered: in_, left, at })?;
        Ok(entered)
    }

    /// Whether a condition holds of a user; the campaigns ask.
    ///
    /// # Errors
    /// When the store fails.
    pub fn holds(
        &self,
        condition: &super::definitions::Condition,
        user: &UserId,
        facts: &Facts,
        contact: Option<&Contact>,
        cx: &Context<'_>,
    ) -> Result<bool> {
        let purchases = if condition.asks_purchases() { self.purchases.of(user, cx)? } else { Vec::new() };
        let views = if condition.asks_views() { self.views(user, cx)? } else { Views::default() };
        let subject = Subject { facts, contact, purchases: &purchases, views: &views, segments: &facts.segments };
        Ok(condition.verdict(&subject, facts.clock.max(cx.now())).holds)
    }

    fn recount(&self, views: &Views, facts: &mut Facts) {
        let repeat = views.repeat(self.rules.repeat_views as usize, self.rules.views_window.get(), facts.clock);
        facts.repeat = repeat.names;
        facts.repeat_changes = repeat.changes;
    }

    /// The shop's own segments beside the built-in ones, which they may ask for.
    fn with_own(
        &mut self,
        user: &UserId,
        built_in: Membership,
        facts: &Facts,
        contact: Option<&Contact>,
        cx: &Context<'_>,
    ) -> Result<Membership> {
        let own = self.own.current(cx);
        if own.is_empty() {
            return Ok(built_in);
        }
        let asked = |asks: fn(&super::definitions::Condition) -> bool| own.iter().any(|(_, condition)| asks(condition));
        let purchases = if asked(super::definitions::Condition::asks_purchases) { self.purchases.of(user, cx)? } else { Vec::new() };
        let views = if asked(super::definitions::Condition::asks_views) { self.views(user, cx)? } else { Views::default() };
        let subject = Subject { facts, contact, purchases: &purchases, views: &views, segments: &built_in.names };
        let mut all = built_in.clone();
        for (name, condition) in &own {
            let verdict = condition.verdict(&subject, facts.clock);
            verdict.changes.iter().for_each(|at| all.changes_at(*at, facts.clock));
            if verdict.holds {
                all.join(name.as_str());
            }
        }
        Ok(all.sorted())
    }
}

fn answer(published: &Table<UserId, Published>, q: &Query<'_>) -> Result<Value> {
    let Some(last) = q.get(published, &q.key.into())? else {
        return Ok(json!({"user_id": q.key, "segments": [], "entered": [], "left": []}));
    };
    Ok(json!({"user_id": q.key, "segments": last.segments, "entered": last.entered, "left": last.left, "at": last.at}))
}
