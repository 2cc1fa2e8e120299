//! Runs: a campaign under way for a user, with the timer of its next step.

use super::{
    built_in,
    definition::{self, Campaign, Trigger},
    gate::Released,
    read_record,
};
use crate::{
    email::{Span, consent::Suppressions, settings::EmailSettings},
    shop::ShopSettings,
    shopper::{CARTS, Cart, ORDERS, PlacedOrder},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};
use tillflow_engine_api::{Context, Declare, Global, Output, Result, TimerKind};
use tillflow_schemas::{EmailResult, EmailTrigger, OrderId, Product, Timestamp, UserId};
use tillflow_state::Table;

/// Runs of one campaign that a user may have at once: one an order for reviews, one a product for stock.
const RUNS: usize = 50;
/// Campaigns whose last start is remembered of a user.
const REMEMBERED: usize = 50;
/// Parts the detail of a timer; no campaign's id has it.
const SEPARATOR: char = '\u{1f}';

/// A campaign under way for a user.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// From when the waits count.
    pub start: Timestamp,
    /// What started it: part of the ids of its mails.
    pub cause: String,
    /// The step that comes next.
    pub step: u32,
    /// What its mails need to know of the cause: a JSON object.
    pub about: String,
}

/// What is remembered of a user's mails.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// The last mail that counts for the cap.
    pub released: Option<Released>,
    /// When a campaign last started, of those that may not start again at once.
    pub started: BTreeMap<String, Timestamp>,
}

impl History {
    /// A campaign has started; the longest ago is forgotten.
    pub fn start(&mut self, campaign: &str, at: Timestamp) {
        self.started.insert(campaign.to_owned(), at);
        if self.started.len() > REMEMBERED
            && let Some(oldest) = self.started.iter().min_by_key(|(id, at)| (**at, (*id).clone())).map(|(id, _)| id.clone())
        {
            self.started.remove(&oldest);
        }
    }
}

type Key = (UserId, String, String);

/// All campaigns, and the runs of every user.
pub struct Campaigns {
    pub(super) settings: EmailSettings,
    pub(super) shop: ShopSettings,
    /// The built-in ones as the configuration has them, and the shop's own of the configuration.
    configured: BTreeMap<String, Arc<Campaign>>,
    records: Global<tillflow_schemas::Campaign>,
    read: HashMap<String, (Arc<tillflow_schemas::Campaign>, Option<Arc<Campaign>>)>,
    pub(super) runs: Table<Key, Run>,
    pub(super) history: Table<UserId, History>,
    pub(super) suppressions: Table<UserId, Suppressions>,
    pub(super) carts: Table<UserId, Cart>,
    pub(super) orders: Table<(UserId, OrderId), PlacedOrder>,
    pub(super) products: Global<Product>,
    pub(super) triggers: Output<EmailTrigger>,
    pub(super) results: Output<EmailResult>,
    timer: TimerKind,
}

impl Campaigns {
    /// Declares tables, outputs and the timer, and reads the campaigns of the configuration.
    pub fn declare(d: &mut Declare<'_>, settings: &EmailSettings, shop: &ShopSettings, products: Global<Product>) -> Self {
        let mut configured: BTreeMap<_, _> = built_in::all().into_iter().map(|c| (c.id.clone(), Arc::new(c))).collect();
        for (id, value) in &settings.campaigns {
            match definition::read(id, value, configured.get(id).map(|c| &**c), settings.segments.spend_window) {
                Ok(Some(campaign)) => drop(configured.insert(id.clone(), Arc::new(campaign))),
                Ok(None) => drop(configured.remove(id)),
                Err(problem) => d.problem(format!("email.campaigns.{problem}")),
            }
        }
        Self {
            settings: settings.clone(),
            shop: shop.clone(),
            configured,
            records: d.global(),
            read: HashMap::new(),
            runs: d.store("email.runs"),
            history: d.store("email.history"),
            suppressions: d.store("email.suppressions"),
            carts: d.read(CARTS),
            orders: d.read(ORDERS),
            products,
            triggers: d.output(),
            results: d.output(),
            timer: d.timer("email.campaigns"),
        }
    }

    /// The timer of steps that are due.
    pub fn timer(&self) -> TimerKind {
        self.timer
    }

    /// The campaign as it counts now. A record of the topic changes what the configuration says; a record that is
    /// wrong switches its campaign off, since what the shop meant is unknown.
    pub fn find(&mut self, id: &str, cx: &Context<'_>) -> Option<Arc<Campaign>> {
        let configured = self.configured.get(id);
        let Some(record) = cx.lookup(&self.records, id) else { return configured.cloned() };
        if let Some((version, campaign)) = self.read.get(id)
            && Arc::ptr_eq(version, &record)
        {
            return campaign.clone();
        }
        // One that the configuration switches off may be switched on by a record with all its fields.
        let spend_window: Span = self.settings.segments.spend_window;
        let campaign = read_record(&record, configured.map(|c| &**c), spend_window).ok().flatten().map(Arc::new);
        self.read.insert(id.to_owned(), (record, campaign.clone()));
        campaign
    }

    /// The campaigns that have a trigger of their own and pass `wanted`, by id.
    pub fn triggered(&mut self, cx: &Context<'_>, wanted: impl Fn(&Trigger) -> bool) -> Vec<Arc<Campaign>> {
        let mut ids: Vec<String> = self.configured.values().filter(|c| c.trigger != Trigger::BuiltIn).map(|c| c.id.clone()).collect();
        ids.extend(cx.lookup_all(&self.records).map(|(id, _)| id.to_owned()));
        ids.sort_unstable();
        ids.dedup();
        ids.iter().filter_map(|id| self.find(id, cx)).filter(|c| wanted(&c.trigger)).collect()
    }

    /// Starts a run, or starts it anew. A timer that is set and fires earlier stays: when it fires too early, it is
    /// set again, which spares moving it with each event.
    pub fn start(&self, user: &UserId, campaign: &Campaign, subject: &str, run: &Run, cx: &mut Context<'_>) -> Result<()> {
        let Some(step) = campaign.steps.first() else { return Ok(()) };
        let key = (user.clone(), campaign.id.clone(), subject.to_owned());
        if !subject.is_empty() && cx.get(&self.runs, &key)?.is_none() && self.count(user, &campaign.id, cx)? >= RUNS {
            return Ok(());
        }
        cx.put(&self.runs, &key, run)?;
        let due = run.start + step.wait.get();
        let detail = detail(campaign, subject);
        if cx.timer_at(self.timer, user.as_str(), &detail)?.is_none_or(|set| set > due) {
            cx.set_timer(self.timer, user.as_str(), &detail, due)?;
        }
        Ok(())
    }

    /// Ends a run, if there is one.
    pub fn end(&self, user: &UserId, campaign: &Campaign, subject: &str, cx: &mut Context<'_>) -> Result<()> {
        let key = (user.clone(), campaign.id.clone(), subject.to_owned());
        if cx.get(&self.runs, &key)?.is_some() {
            cx.delete(&self.runs, &key);
        }
        cx.cancel_timer(self.timer, user.as_str(), &detail(campaign, subject))
    }

    /// The subjects of a user's runs of one campaign.
    pub fn subjects(&self, user: &UserId, campaign: &str, cx: &Context<'_>) -> Result<Vec<String>> {
        let mut subjects = Vec::new();
        cx.scan(&self.runs, &(user.clone(), campaign.to_owned()), |key: Key, _| {
            subjects.push(key.2);
            true
        })?;
        Ok(subjects)
    }

    /// A mail did not arrive: its place under the cap is given back. `message_id` is the trigger's id, as it stands in
    /// the mail's Message-ID.
    ///
    /// # Errors
    /// When the store fails.
    pub fn give_back(&self, user: &UserId, message_id: &str, cx: &mut Context<'_>) -> Result<()> {
        let Some(mut history) = cx.get(&self.history, user)? else { return Ok(()) };
        let id = message_id.trim_start_matches('<').split('@').next().unwrap_or_default();
        if history.released.as_ref().is_some_and(|r| r.trigger_id == id) {
            history.released = None;
            cx.put(&self.history, user, &history)?;
        }
        Ok(())
    }

    /// Sets the timer of a run.
    pub(super) fn set(&self, user: &UserId, campaign: &Campaign, subject: &str, at: Timestamp, cx: &mut Context<'_>) -> Result<()> {
        cx.set_timer(self.timer, user.as_str(), &detail(campaign, subject), at)
    }

    fn count(&self, user: &UserId, campaign: &str, cx: &Context<'_>) -> Result<usize> {
        Ok(self.subjects(user, campaign, cx)?.len())
    }
}

/// Timers of one user that fire at one moment fire in the order of their details: by priority.
fn detail(campaign: &Campaign, subject: &str) -> String {
    format!("{:02}{SEPARATOR}{}{SEPARATOR}{subject}", campaign.priority as u8, campaign.id)
}

/// Campaign and subject of a timer's detail.
pub(super) fn parse_detail(detail: &str) -> Option<(&str, &str)> {
    let mut parts = detail.splitn(3, SEPARATOR).skip(1);
    Some((parts.next()?, parts.next()?))
}
