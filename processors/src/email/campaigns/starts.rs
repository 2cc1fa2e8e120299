//! What starts and what ends each campaign.

use super::{
    built_in::{ABANDONED_CART, BACK_IN_STOCK, BIRTHDAY, BROWSE, PRICE_DROP, REVIEW_REQUEST, TIER_UPGRADED, WIN_BACK},
    definition::{Campaign, Trigger},
    gate::next_birthday,
    runs::{Campaigns, Run},
};
use crate::{
    email::{Span, consent::Contact, facts::Facts, facts::is_shop_event, segments::Views},
    shopper::EarlyRefund,
};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tillflow_engine_api::{Context, Result};
use tillflow_schemas::{CustomerSignal, Notification, OrderId, ProductId, Refund, Timestamp, UserEvent, UserEventKind as Kind, UserId};

/// Views of one product that start a browse mail, and in which time.
const BROWSE_VIEWS: usize = 2;
const BROWSE_WINDOW: Span = Span::days(7);
/// The longest event that goes into the data of a mail, in bytes of JSON.
const LARGEST_EVENT: usize = 20_000;

/// An event, and what was made of it before the campaigns see it.
pub struct Occasion<'a> {
    /// Whose.
    pub user: &'a UserId,
    /// The event.
    pub event: &'a UserEvent,
    /// The segments it made the user enter.
    pub entered: &'a [String],
    /// What the user has looked at, where the event is a view.
    pub views: Option<&'a Views>,
    /// What came before the order, where the event is one.
    pub early: &'a [EarlyRefund],
    /// What is known of them.
    pub contact: Option<&'a Contact>,
}

impl Campaigns {
    /// Starts and ends what an event starts and ends.
    ///
    /// # Errors
    /// When the store fails.
    pub fn on_event(&mut self, o: &Occasion<'_>, facts: &mut Facts, cart_before: Option<Timestamp>, cx: &mut Context<'_>) -> Result<()> {
        self.cart_changed(o.user, facts, cart_before, cx)?;
        match &o.event.kind {
            Kind::OrderCompleted(order) if o.early.is_empty() => self.review(o.user, &order.order_id, cx)?,
            Kind::OrderCancelled { order_id } => self.end_subject(o.user, REVIEW_REQUEST, order_id.as_str(), cx)?,
            Kind::OrderRefunded(refund) => self.refunded(o.user, refund, cx)?,
            Kind::ProductReviewed { product_id, .. } => self.end_reviews(o.user, |id| id == product_id, cx)?,
            Kind::ProductViewed { product_id, .. } => self.browse(o, product_id, cx)?,
            _ => {}
        }
        if matches!(o.event.kind, Kind::AddedToCart { .. } | Kind::CheckoutStarted { .. } | Kind::OrderCompleted(_)) {
            self.end_subject(o.user, BROWSE, "", cx)?;
        }
        if is_shop_event(&o.event.kind) {
            self.watch(o.user, facts, cx)?;
        }
        self.birthday(o.user, facts, o.contact, cx)?;
        self.own(o, cx)?;
        self.segments_entered(o.user, o.entered, cx)
    }

    /// Starts what entering segments starts.
    ///
    /// # Errors
    /// When the store fails.
    pub fn segments_entered(&mut self, user: &UserId, entered: &[String], cx: &mut Context<'_>) -> Result<()> {
        if entered.is_empty() {
            return Ok(());
        }
        for campaign in self.triggered(cx, |t| matches!(t, Trigger::Segment(name) if entered.contains(name))) {
            self.start_own(user, &campaign, cx.now().to_string(), Map::new(), cx)?;
        }
        Ok(())
    }

    /// A tier reached, or what the shop's own campaigns wait for.
    ///
    /// # Errors
    /// When the store fails.
    pub fn on_notification(&mut self, n: &Notification, cx: &mut Context<'_>) -> Result<()> {
        if n.kind == "tier_upgraded"
            && let Some(campaign) = self.find(TIER_UPGRADED, cx)
        {
            let mut about = n.data.clone();
            about.insert("title".into(), n.title.clone().into());
            self.start(&n.user_id, &campaign, "", &run(cx.now(), format!("{}:{}", n.kind, cx.now()), about), cx)?;
        }
        for campaign in self.triggered(cx, |t| matches!(t, Trigger::Notification(kind) if *kind == n.kind)) {
            self.start_own(&n.user_id, &campaign, format!("{}:{}", n.kind, cx.now()), n.data.clone(), cx)?;
        }
        Ok(())
    }

    /// What the product's owner says to those who asked, or who looked at it lately.
    ///
    /// # Errors
    /// When the store fails.
    pub fn on_signal(&mut self, s: &CustomerSignal, cx: &mut Context<'_>) -> Result<()> {
        let id = match s.kind.as_str() {
            BACK_IN_STOCK => BACK_IN_STOCK,
            PRICE_DROP => PRICE_DROP,
            _ => return Ok(()),
        };
        let Some(product) = s.data.get("product_id").and_then(Value::as_str) else { return Ok(()) };
        let Some(campaign) = self.find(id, cx) else { return Ok(()) };
        self.start(&s.user_id, &campaign, product, &run(cx.now(), s.signal_id.clone(), s.data.clone()), cx)
    }

    /// Sets the birthday mail where it is not set, or set for another birthday or zone.
    ///
    /// # Errors
    /// When the store fails.
    pub fn birthday(&mut self, user: &UserId, facts: &mut Facts, contact: Option<&Contact>, cx: &mut Context<'_>) -> Result<()> {
        let wanted = contact.and_then(|c| c.birthday.as_ref().map(|b| format!("{b} {}", c.timezone.as_deref().unwrap_or_default())));
        if let Some((set, at)) = &facts.birthday
            && wanted.as_ref() == Some(set)
            && *at > cx.now()
        {
            return Ok(());
        }
        if facts.birthday.take().is_some() {
            self.end_subject(user, BIRTHDAY, "", cx)?;
        }
        let (Some(wanted), Some(contact)) = (wanted, contact) else { return Ok(()) };
        let zone = Contact::zone(Some(contact), self.shop.timezone.as_deref());
        let birthday = contact.birthday.as_deref().unwrap_or_default();
        let Some(at) = next_birthday(birthday, &zone, self.settings.birthday_hour, cx.now()) else { return Ok(()) };
        let Some(campaign) = self.find(BIRTHDAY, cx) else { return Ok(()) };
        facts.birthday = Some((wanted, at));
        self.start(user, &campaign, "", &run(at, at.to_string(), Map::new()), cx)
    }

    /// t0 of the cart has moved, or it is empty.
    ///
    /// # Errors
    /// When the store fails.
    pub fn cart_changed(&mut self, user: &UserId, facts: &Facts, before: Option<Timestamp>, cx: &mut Context<'_>) -> Result<()> {
        if facts.cart_since == before {
            return Ok(());
        }
        let Some(campaign) = self.find(ABANDONED_CART, cx) else { return Ok(()) };
        match facts.cart_since {
            Some(t0) => self.start(user, &campaign, "", &run(t0, t0.to_string(), Map::new()), cx),
            None => self.end(user, &campaign, "", cx),
        }
    }

    fn review(&mut self, user: &UserId, order: &OrderId, cx: &mut Context<'_>) -> Result<()> {
        let Some(campaign) = self.find(REVIEW_REQUEST, cx) else { return Ok(()) };
        self.start(user, &campaign, order.as_str(), &run(cx.now(), order.to_string(), Map::new()), cx)
    }

    /// A refund ends the request of the order it names; one that names none ends those of orders that hold one of its
    /// items, or all where it states no items.
    fn refunded(&mut self, user: &UserId, refund: &Refund, cx: &mut Context<'_>) -> Result<()> {
        match &refund.order_id {
            Some(order) => self.end_subject(user, REVIEW_REQUEST, order.as_str(), cx),
            None => self.end_reviews(user, |id| refund.items.is_empty() || refund.items.iter().any(|i| i.product_id == *id), cx),
        }
    }

    /// Ends the review requests of orders that hold such a product.
    fn end_reviews(&mut self, user: &UserId, holds: impl Fn(&ProductId) -> bool, cx: &mut Context<'_>) -> Result<()> {
        for order in self.subjects(user, REVIEW_REQUEST, cx)? {
            let placed = cx.get(&self.orders, &(user.clone(), OrderId::from(order.as_str())))?;
            if placed.is_some_and(|p| p.items.iter().any(|i| holds(&i.product_id))) {
                self.end_subject(user, REVIEW_REQUEST, &order, cx)?;
            }
        }
        Ok(())
    }

    /// The second view in a week of a product that is neither in the cart nor ordered in that time.
    fn browse(&mut self, o: &Occasion<'_>, product: &ProductId, cx: &mut Context<'_>) -> Result<()> {
        let Some(views) = o.views else { return Ok(()) };
        let now = cx.now();
        let ordered = views.iter().any(|v| v.product == *product && v.ordered.is_some_and(|t| t > now - BROWSE_WINDOW.get()));
        if views.of(product, BROWSE_WINDOW.get(), now) < BROWSE_VIEWS || ordered {
            return Ok(());
        }
        if cx.get(&self.carts, o.user)?.is_some_and(|cart| cart.items.contains_key(product)) {
            return Ok(());
        }
        let Some(campaign) = self.find(BROWSE, cx) else { return Ok(()) };
        let about = object(json!({"product_id": product}));
        self.start(o.user, &campaign, "", &run(now, format!("{product}:{now}"), about), cx)
    }

    /// Win-back waits from the first event on; when its timer fires, it counts from the last one.
    fn watch(&mut self, user: &UserId, facts: &mut Facts, cx: &mut Context<'_>) -> Result<()> {
        if facts.watched {
            return Ok(());
        }
        let (Some(campaign), Some(last)) = (self.find(WIN_BACK, cx), facts.last_event) else { return Ok(()) };
        facts.watched = true;
        self.start(user, &campaign, "", &run(last, last.to_string(), Map::new()), cx)
    }

    /// The shop's own campaigns that wait for this event, and those it ends.
    fn own(&mut self, o: &Occasion<'_>, cx: &mut Context<'_>) -> Result<()> {
        let kind = o.event.event_type();
        let campaigns = self.triggered(cx, |_| true);
        for campaign in &campaigns {
            if campaign.exit.iter().any(|exit| exit == kind) {
                self.end(o.user, campaign, "", cx)?;
            }
        }
        let was_ended = |c: &Campaign| c.exit.iter().any(|exit| o.early.iter().any(|early| early.event_type() == exit));
        for campaign in campaigns.iter().filter(|c| c.trigger == Trigger::Event(kind.to_owned()) && !was_ended(c)) {
            let cause = o.event.event_id.clone().unwrap_or_else(|| cx.now().to_string());
            let event = serde_json::to_value(o.event).ok().filter(|v| v.to_string().len() <= LARGEST_EVENT);
            let about = object(json!({"event": event}));
            self.start_own(o.user, campaign, cause, about, cx)?;
        }
        Ok(())
    }

    /// An own campaign starts unless it is under way.
    fn start_own(
        &mut self,
        user: &UserId,
        campaign: &Arc<Campaign>,
        cause: String,
        about: Map<String, Value>,
        cx: &mut Context<'_>,
    ) -> Result<()> {
        let key = (user.clone(), campaign.id.clone(), String::new());
        if cx.get(&self.runs, &key)?.is_some() {
            return Ok(());
        }
        self.start(user, campaign, "", &run(cx.now(), cause, about), cx)
    }

    fn end_subject(&mut self, user: &UserId, campaign: &str, subject: &str, cx: &mut Context<'_>) -> Result<()> {
        match self.find(campaign, cx) {
            Some(campaign) => self.end(user, &campaign, subject, cx),
            None => Ok(()),
        }
    }
}

fn run(start: Timestamp, cause: String, about: Map<String, Value>) -> Run {
    let about = if about.is_empty() { String::new() } else { Value::Object(about).to_string() };
    Run { start, cause, step: 0, about }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
