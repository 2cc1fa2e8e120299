//! E-mail: which segments a user is in, which campaign says what to whom and when, and never more than is welcome.
//! Nothing is sent here: `email_triggers` says what should be, and a connector sends it.
//!
//! Runs last of the customers' group, so that it sees what the others decided of an event. Anonymous visitors have
//! neither segments nor mail.

pub mod campaigns;
pub mod consent;
pub mod definitions;
mod facts;
#[cfg(test)]
mod properties;
pub mod segments;
mod settings;
mod span;
#[cfg(test)]
mod testing;

pub use settings::{EmailSettings, QuietHours, SegmentSettings};
pub use span::Span;

use crate::{
    shop::ShopSettings,
    shopper::{CARTS, Cart, EarlyRefund, EarlyRefunds, ITEMS_KEPT, MOVED_CART},
};
use campaigns::{Campaigns, Occasion};
use consent::{Contact, Contacts, Suppressions, may_mail};
use facts::Facts;
use segments::{Segments, Views};
use serde_json::{Value, json};
use tillflow_engine_api::{Context, Declare, Global, Processor, Query, Result, Timer};
use tillflow_schemas::{Change, Customer, CustomerSignal, Event, Notification, Order, Product, UserEvent, UserEventKind as Kind, UserId};
use tillflow_state::Table;

/// Segments and campaigns.
pub struct Email {
    shop: ShopSettings,
    segments: Segments,
    campaigns: Campaigns,
    facts: Table<UserId, Facts>,
    contacts: Table<UserId, Contacts>,
    suppressions: Table<UserId, Suppressions>,
    carts: Table<UserId, Cart>,
    early: EarlyRefunds,
    products: Global<Product>,
}

impl Processor for Email {
    fn declare(d: &mut Declare<'_>) -> Self {
        let settings: EmailSettings = d.settings("email");
        let shop: ShopSettings = d.settings("shop");
        settings.problems().into_iter().for_each(|problem| d.problem(problem));
        d.input::<UserEvent>();
        d.input::<Customer>();
        d.input::<CustomerSignal>();
        d.follow::<Notification>();
        d.check(|definition| segments::problems(definition).map_or(Ok(()), |problem| Err(problem.to_string())));
        d.check(|campaign| campaigns::problems(campaign).map_or(Ok(()), |problem| Err(problem.to_string())));
        let products = d.global();
        let (contacts, suppressions) = (d.store("email.contacts"), Table::new("email.suppressions"));
        d.query("email", move |q| may_be_mailed(contacts, suppressions, q).map(Some));
        Self {
            segments: Segments::declare(d, &settings),
            campaigns: Campaigns::declare(d, &settings, &shop, products),
            facts: d.store("email.facts"),
            contacts,
            suppressions,
            carts: d.read(CARTS),
            early: EarlyRefunds::read(d),
            products,
            shop,
        }
    }

    fn process(&mut self, event: &Event, cx: &mut Context<'_>) -> Result<()> {
        match event {
            Event::User(event) if matches!(event.kind, Kind::Unknown { .. }) => Ok(()),
            Event::User(event) => event.user_id.as_ref().map_or(Ok(()), |user| self.happened(user, event, cx)),
            Event::Customer(change) => self.stated(change, cx),
            Event::CustomerSignal(signal) if signal.kind == MOVED_CART => self.cart_moved(&signal.user_id, cx),
            Event::CustomerSignal(signal) => self.campaigns.on_signal(signal, cx),
            Event::Notification(notification) => self.campaigns.on_notification(notification, cx),
            _ => Ok(()),
        }
    }

    fn on_timer(&mut self, timer: &Timer, cx: &mut Context<'_>) -> Result<()> {
        let user = UserId::from(timer.key.as_str());
        let mut facts = cx.get(&self.facts, &user)?.unwrap_or_default();
        facts.clock = facts.clock.max(cx.now());
        let contacts = cx.get(&self.contacts, &user)?;
        let contact = contacts.as_ref().and_then(|c| c.at(cx.now()));
        if timer.is(self.segments.timer()) {
            facts.recheck = None;
        }
        let entered = self.segments.refresh(&user, &mut facts, contact, cx)?;
        self.campaigns.segments_entered(&user, &entered, cx)?;
        if timer.is(self.campaigns.timer()) {
            self.campaigns.on_timer(timer, &mut facts, contact, &self.segments, cx)?;
            self.campaigns.birthday(&user, &mut facts, contact, cx)?;
        }
        cx.put(&self.facts, &user, &facts)
    }
}

/// Whether the user may be mailed now, and where or why not: asked once more before a mail leaves.
fn may_be_mailed(contacts: Table<UserId, Contacts>, suppressions: Table<UserId, Suppressions>, q: &Query<'_>) -> Result<Value> {
    let user = UserId::from(q.key);
    let contacts = q.get(&contacts, &user)?;
    let suppressions = q.get(&suppressions, &user)?.unwrap_or_default();
    let may = may_mail(contacts.as_ref().and_then(Contacts::newest), &suppressions);
    Ok(json!({"user_id": user, "may": may.is_ok(), "to": may.ok(), "why": may.err()}))
}

impl Email {
    /// An event of a known user: what is remembered, then the segments, then the campaigns.
    fn happened(&mut self, user: &UserId, event: &UserEvent, cx: &mut Context<'_>) -> Result<()> {
        let mut facts = cx.get(&self.facts, user)?.unwrap_or_default();
        let contacts = cx.get(&self.contacts, user)?;
        let contact = contacts.as_ref().and_then(|c| c.at(cx.now()));
        let cart_before = facts.cart_since;
        facts.note(&event.kind, cx.now());
        let mut views = None;
        let mut early = Vec::new();
        match &event.kind {
            Kind::ProductViewed { product_id, .. } => {
                let mut viewed = self.segments.views(user, cx)?;
                viewed.view(product_id, &self.category(product_id.as_str(), cx), cx.now(), facts.clock);
                self.segments.put_views(user, &viewed, &mut facts, cx)?;
                views = Some(viewed);
            }
            Kind::OrderCompleted(order) => {
                early = self.early.of(user, &order.order_id, cx)?;
                self.ordered(user, order, &early, &mut facts, cx)?;
            }
            Kind::OrderRefunded(refund) => {
                let id = event.event_id.as_deref();
                self.segments.purchases.refund(user, refund, id, &self.shop, &mut facts, cx)?;
            }
            Kind::OrderCancelled { order_id } => self.segments.purchases.cancel(user, order_id, &mut facts, cx)?,
            Kind::EmailUnsubscribed { .. } | Kind::EmailComplained { .. } | Kind::EmailBounced { .. } => {
                self.suppress(user, &event.kind, contact, cx)?;
            }
            _ => {}
        }
        let may_touch_cart = matches!(event.kind, Kind::AddedToCart { .. } | Kind::RemovedFromCart { .. } | Kind::OrderCompleted(_));
        if may_touch_cart || event.anonymous_id.is_some() {
            facts.cart_since = cx.get(&self.carts, user)?.map(|cart| cart.changed_at);
        }
        let entered = self.segments.refresh(user, &mut facts, contact, cx)?;
        let occasion = Occasion { user, event, entered: &entered, views: views.as_ref(), early: &early, contact };
        self.campaigns.on_event(&occasion, &mut facts, cart_before, cx)?;
        cx.put(&self.facts, user, &facts)
    }

    /// The cart of before the log-in has come.
    fn cart_moved(&mut self, user: &UserId, cx: &mut Context<'_>) -> Result<()> {
        let mut facts = cx.get(&self.facts, user)?.unwrap_or_default();
        let contacts = cx.get(&self.contacts, user)?;
        let contact = contacts.as_ref().and_then(|c| c.at(cx.now()));
        let cart_before = facts.cart_since;
        facts.cart_since = cx.get(&self.carts, user)?.map(|cart| cart.changed_at);
        let entered = self.segments.refresh(user, &mut facts, contact, cx)?;
        self.campaigns.cart_changed(user, &facts, cart_before, cx)?;
        self.campaigns.segments_entered(user, &entered, cx)?;
        cx.put(&self.facts, user, &facts)
    }

    fn ordered(&mut self, user: &UserId, order: &Order, early: &[EarlyRefund], facts: &mut Facts, cx: &mut Context<'_>) -> Result<()> {
        let mut views: Views = self.segments.views(user, cx)?;
        let mut categories = Vec::new();
        for item in order.items.iter().take(ITEMS_KEPT) {
            let category = self.category(item.product_id.as_str(), cx);
            views.order(&item.product_id, &category, cx.now(), facts.clock);
            if !category.is_empty() && !categories.contains(&category) {
                categories.push(category);
            }
        }
        self.segments.put_views(user, &views, facts, cx)?;
        let purchases = &self.segments.purchases;
        purchases.place(user, order, categories, &self.shop, facts, cx)?;
        early.iter().try_for_each(|early| match &early.refund {
            Some(refund) => purchases.refund(user, refund, early.event_id.as_deref(), &self.shop, facts, cx),
            None => purchases.cancel(user, &order.order_id, facts, cx),
        })
    }

    /// Unsubscription, complaint and hard bounce suppress at once; a mail that bounced in any way gives its place under
    /// the cap back.
    fn suppress(&mut self, user: &UserId, kind: &Kind, contact: Option<&Contact>, cx: &mut Context<'_>) -> Result<()> {
        let mut suppressions = cx.get(&self.suppressions, user)?.unwrap_or_default();
        match kind {
            Kind::EmailUnsubscribed { .. } => suppressions.unsubscribed = suppressions.unsubscribed.max(Some(cx.now())),
            Kind::EmailComplained { .. } => suppressions.complained = suppressions.complained.max(Some(cx.now())),
            Kind::EmailBounced { message_id, hard } => {
                self.campaigns.give_back(user, message_id, cx)?;
                if !hard {
                    return Ok(());
                }
                suppressions.bounced = contact.and_then(|c| c.email.clone()).or(suppressions.bounced);
            }
            _ => {}
        }
        cx.put(&self.suppressions, user, &suppressions)
    }

    /// What the shop states of a customer. Segments follow at once for one who was seen before; the others have none.
    fn stated(&mut self, change: &Change<Customer>, cx: &mut Context<'_>) -> Result<()> {
        let user = UserId::from(change.id.as_str());
        let contacts = match &change.value {
            Some(customer) => {
                let mut contacts = cx.get(&self.contacts, &user)?.unwrap_or_default();
                contacts.state(customer, cx.now());
                cx.put(&self.contacts, &user, &contacts)?;
                contacts
            }
            None => {
                cx.delete(&self.contacts, &user);
                Contacts::default()
            }
        };
        let Some(mut facts) = cx.get(&self.facts, &user)? else { return Ok(()) };
        let contact = contacts.at(cx.now().max(facts.clock));
        let entered = self.segments.refresh(&user, &mut facts, contact, cx)?;
        self.campaigns.segments_entered(&user, &entered, cx)?;
        self.campaigns.birthday(&user, &mut facts, contact, cx)?;
        cx.put(&self.facts, &user, &facts)
    }

    fn category(&self, product: &str, cx: &Context<'_>) -> String {
        cx.lookup(&self.products, product).map(|p| p.category.clone()).unwrap_or_default()
    }
}
