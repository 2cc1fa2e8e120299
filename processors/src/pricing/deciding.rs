//! A decision from its inputs to what is published of it, and the product records that move a price by themselves.

use super::{
    DayOfDemand, Demand, Explanation, Facts, Figures, Inputs, PastPrice, Priced, Pricing, PricingParameters, Score, Zone, decide,
    demand::days_before,
    guardrails::{Decision, Gate, direction},
    resting::Due,
    rules::InForce,
    state::HISTORY,
};
use std::time::Duration;
use tillflow_engine_api::{Context, Result};
use tillflow_schemas::{Mode, Money, PriceChange, ProductId, ProductPrice, Timestamp};

/// History rows forgotten with one change, at most: a change adds one, so this keeps up.
const FORGET_AT_ONCE: usize = 8;

/// What causes a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trigger {
    /// The product's second of the hour.
    Hourly,
    /// Stock crossed a threshold.
    Stock,
    /// Stock crossed a threshold during a cool-down, which has ended.
    CoolDown,
    /// A product record broke a hard limit.
    Limit,
    /// Somebody asked.
    Run,
}

impl Trigger {
    const ALL: [Self; 5] = [Self::Hourly, Self::Stock, Self::CoolDown, Self::Limit, Self::Run];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Hourly => "hourly",
            Self::Stock => "stock",
            Self::CoolDown => "cool_down",
            Self::Limit => "limit",
            Self::Run => "run",
        }
    }

    /// The detail of its timer. One a moment, so that a second crossing does not replace the first before it fired; one
    /// alone at the end of a cool-down.
    pub(super) fn detail(self, at: Timestamp) -> String {
        match self {
            Self::CoolDown => self.name().to_owned(),
            _ => format!("{}@{}", self.name(), at.millis()),
        }
    }

    pub(super) fn of(detail: &str) -> Self {
        let name = detail.split('@').next().unwrap_or_default();
        Self::ALL.into_iter().find(|t| t.name() == name).unwrap_or(Self::Hourly)
    }
}

/// What a decision at `at` rests on; `None` where the product has no price.
pub(super) fn inputs(
    product: &Priced,
    facts: &Facts,
    parameters: &PricingParameters,
    days: &[(i64, DayOfDemand)],
    at: Timestamp,
) -> Option<Inputs> {
    Some(Inputs {
        now: at,
        base: facts.base.decimal(),
        current: product.price()?.1.decimal(),
        limits: facts.limits(),
        digits: facts.digits(),
        price_fixed: facts.price_fixed,
        stock: product.stock_at(at),
        demand: figures(&Demand::of(days, at), parameters, at),
        day_ago: product.day_ago(at)?.decimal(),
        last_change: product.last_change,
        last_markdown: product.last_markdown,
    })
}

/// What demand comes to under a rule, which may state the score by hand.
pub(super) fn figures(demand: &Demand, parameters: &PricingParameters, at: Timestamp) -> Figures {
    let mut figures = demand.figures(at, parameters.conversion_prior.0);
    if let Some(by_hand) = parameters.demand_score {
        figures.score = Score::by_hand(by_hand.0);
    }
    figures
}

impl Pricing {
    /// Applies the product records that count by `now`, in order.
    pub(super) fn settle(&mut self, id: &ProductId, product: &mut Priced, now: Timestamp, cx: &mut Context<'_>) -> Result<()> {
        while let Some((from, facts)) = product.next_version(now) {
            let since = product.price().map_or(Timestamp::EARLIEST, |(since, _)| since);
            self.apply(id, product, from.max(since), facts, cx)?;
        }
        Ok(())
    }

    /// A product record begins to count: its base price, where it is new, becomes the price.
    fn apply(&mut self, id: &ProductId, product: &mut Priced, at: Timestamp, facts: Option<Facts>, cx: &mut Context<'_>) -> Result<()> {
        let Some(facts) = facts else {
            // Deleted: history stays, everything else begins anew should it come back.
            product.facts = None;
            product.restart(at, None);
            return Ok(());
        };
        let stays = product.facts.as_ref().is_some_and(|old| (old.base, &old.currency) == (facts.base, &facts.currency));
        let (before, is_first) = (product.price(), product.facts.is_none());
        let base = facts.base;
        product.facts = Some(facts);
        if !stays {
            self.restate(id, product, at, before.map(|(_, price)| price), base, cx)?;
        }
        self.wake(id, product, at, cx)?;
        self.start_hourly(id, product, at, cx)?;
        let Some((facts, (_, price))) = product.facts.as_ref().zip(product.price()) else { return Ok(()) };
        let in_force = self.rules.in_force(&facts.category, id.as_str(), cx);
        let Ok(p) = in_force.parameters else { return Ok(()) };
        if facts.limits().broken_by(price.decimal(), &p, facts.digits()) {
            self.decide_at(id, Trigger::Limit, at, cx)?;
        }
        // Stock levels known before the product: those outside low..high, and each change of zone, are crossings of now on.
        let mut before = Zone::Moderate;
        for (since, level) in product.stock_from(at).filter(|_| is_first) {
            let zone = Zone::of(level, &p);
            if std::mem::replace(&mut before, zone) != zone {
                self.decide_at(id, Trigger::Stock, since.max(at), cx)?;
            }
        }
        Ok(())
    }

    /// The shop states a base price: it is the price at once, and drift begins anew.
    fn restate(
        &mut self,
        id: &ProductId,
        product: &mut Priced,
        at: Timestamp,
        before: Option<Money>,
        base: Money,
        cx: &mut Context<'_>,
    ) -> Result<()> {
        product.restart(at, Some(base));
        if let Some(old) = before.filter(|old| *old != base) {
            product.last_change = Some((at, 0));
            let stock = product.stock_at(at);
            let reason = "Base price changed".to_owned();
            let (rule, score) = self.standing(id, product, at, cx)?;
            self.end_price(id, at, old, cx)?;
            self.record(
                id,
                product,
                PastPrice { at, old_price: Some(old), new_price: base, reason: reason.clone(), mode: Mode::Live },
                cx,
            )?;
            let change = PriceChange {
                product_id: id.clone(),
                old_price: old,
                new_price: base,
                currency: product.facts.as_ref().and_then(|f| f.currency.clone()),
                reason,
                demand_score: score.number(),
                stock_level: stock,
                rule,
                bounded_by: Vec::new(),
                mode: Mode::Live,
                decided_at: at,
            };
            cx.emit(&self.changes, change)?;
            cx.delete(&self.tables.made, id);
        } else if before.is_none() {
            let reason = "First price".to_owned();
            self.record(id, product, PastPrice { at, old_price: None, new_price: base, reason, mode: Mode::Live }, cx)?;
        }
        self.publish_price(id, product, cx)
    }

    /// The rule and the demand score as they stand, for a change that rests on neither.
    fn standing(&mut self, id: &ProductId, product: &Priced, at: Timestamp, cx: &Context<'_>) -> Result<(String, Score)> {
        let Some(facts) = &product.facts else { return Ok(Default::default()) };
        let in_force = self.rules.in_force(&facts.category, id.as_str(), cx);
        let parameters = in_force.parameters.unwrap_or_default();
        Ok((in_force.rule, figures(&Demand::of(&self.days_of_demand(id, at, cx)?, at), &parameters, at).score))
    }

    /// Demand that counts at `at`, and what is known of the day after.
    fn days_of_demand(&self, id: &ProductId, at: Timestamp, cx: &Context<'_>) -> Result<Vec<(i64, DayOfDemand)>> {
        let days = days_before(at);
        let mut rows = Vec::new();
        for day in *days.start()..=*days.end() + 1 {
            if let Some(row) = cx.get(&self.tables.demand, &(id.clone(), day))? {
                rows.push((day, row));
            }
        }
        Ok(rows)
    }

    /// Decides for now, the time of the timer. Returns when the next regular decision is due, unless something is heard of
    /// the product before.
    pub(super) fn decide(&mut self, id: &ProductId, product: &mut Priced, trigger: Trigger, cx: &mut Context<'_>) -> Result<Due> {
        let now = cx.now();
        let Some(facts) = product.facts.clone() else { return Ok(Due::NextHour) };
        let InForce { rule, parameters } = self.rules.in_force(&facts.category, id.as_str(), cx);
        let (parameters, problem) = match parameters {
            Ok(p) => (p, None),
            Err(e) => (PricingParameters::default(), Some(e)),
        };
        let days = self.days_of_demand(id, now, cx)?;
        let Some(inputs) = inputs(product, &facts, &parameters, &days, now) else { return Ok(Due::NextHour) };
        let decision = match problem {
            Some(_) => Decision::held(&inputs, Gate::InvalidRule),
            None => decide(&inputs, &parameters),
        };
        // In a cool-down a crossing is decided once, at its end.
        if decision.gate == Some(Gate::CoolDown)
            && trigger != Trigger::Hourly
            && let Some((changed, _)) = product.last_change
        {
            let end = changed + Duration::from_secs(u64::from(parameters.cool_down_minutes) * 60);
            self.decide_at(id, Trigger::CoolDown, end, cx)?;
        }
        let explanation = Explanation {
            at: now,
            trigger: trigger.name().to_owned(),
            rule,
            mode: parameters.mode,
            base: facts.base,
            current: Money::from(inputs.current),
            day_ago: Money::from(inputs.day_ago),
            stock: inputs.stock,
            demand: inputs.demand,
            raw: decision.raw.as_ref().map(|r| Explanation::amount(r.price, facts.digits())),
            bounds: Explanation::bounds(&decision.bites, facts.digits()),
            gate: decision.gate,
            problem,
            price: Money::from(decision.price).rounded(facts.digits()),
            reason: decision.raw.as_ref().map(|r| r.reason.clone()).unwrap_or_default(),
        };
        cx.put(&self.tables.last, id, &explanation)?;
        let markdown = decision.raw.is_some_and(|r| r.markdown);
        if decision.gate.is_none() {
            if self.publish_change(id, product, &facts, explanation, markdown, cx)? {
                self.wake(id, product, now, cx)?;
            }
            return Ok(Due::NextHour);
        }
        self.next_due(id, product, &facts, &parameters, &days, decision.gate, cx)
    }

    /// Publishes a change, and puts it in force unless it is a shadow. Returns whether anything was new.
    fn publish_change(
        &mut self,
        id: &ProductId,
        product: &mut Priced,
        facts: &Facts,
        made: Explanation,
        markdown: bool,
        cx: &mut Context<'_>,
    ) -> Result<bool> {
        let (now, old, new) = (made.at, made.current, made.price);
        if made.mode == Mode::Shadow && product.shadow.replace(new) == Some(new) {
            return Ok(false);
        }
        let past = PastPrice { at: now, old_price: Some(old), new_price: new, reason: made.reason.clone(), mode: made.mode };
        self.record(id, product, past, cx)?;
        let change = PriceChange {
            product_id: id.clone(),
            old_price: old,
            new_price: new,
            currency: facts.currency.clone(),
            reason: made.reason.clone(),
            demand_score: made.demand.score.number(),
            stock_level: made.stock,
            rule: made.rule.clone(),
            bounded_by: made.bounds.iter().map(|(bound, ..)| bound.name().to_owned()).collect(),
            mode: made.mode,
            decided_at: now,
        };
        cx.emit(&self.changes, change)?;
        if made.mode == Mode::Shadow {
            return Ok(true);
        }
        product.shadow = None;
        product.change(now, new);
        product.last_change = Some((now, direction(old.decimal(), new.decimal())));
        if markdown {
            product.last_markdown = Some(now);
        }
        self.end_price(id, now, old, cx)?;
        cx.put(&self.tables.made, id, &made)?;
        self.publish_price(id, product, cx)?;
        Ok(true)
    }

    fn publish_price(&self, id: &ProductId, product: &Priced, cx: &mut Context<'_>) -> Result<()> {
        if let Some((since, price)) = product.price() {
            let currency = product.facts.as_ref().and_then(|f| f.currency.clone());
            cx.emit(&self.prices, ProductPrice { product_id: id.clone(), price, currency, since })?;
        }
        self.publish_status(id, product, cx)
    }

    /// A live price ended: the lowest of 30 days must know.
    fn end_price(&self, id: &ProductId, at: Timestamp, old: Money, cx: &mut Context<'_>) -> Result<()> {
        let mut lowest = cx.get(&self.tables.lowest, id)?.unwrap_or_default();
        lowest.end(at, old);
        cx.put(&self.tables.lowest, id, &lowest)
    }

    /// Appends to the history, and forgets what is older than it must be.
    fn record(&self, id: &ProductId, product: &mut Priced, past: PastPrice, cx: &mut Context<'_>) -> Result<()> {
        let horizon = past.at - HISTORY;
        cx.put(&self.tables.history, &(id.clone(), product.history_to), &past)?;
        product.history_to += 1;
        for _ in 0..FORGET_AT_ONCE {
            let oldest = (id.clone(), product.history_from);
            // The price in force at the horizon is the one that began before it: keep that row.
            let next = cx.get(&self.tables.history, &(id.clone(), product.history_from + 1))?;
            if next.is_none_or(|next| next.at > horizon) {
                break;
            }
            cx.delete(&self.tables.history, &oldest);
            product.history_from += 1;
        }
        Ok(())
    }
}
