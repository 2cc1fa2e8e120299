//! What a campaign is, as the shop writes it. Its own campaigns and its changes of the built-in ones share one form:
//!
//! ```yaml
//! tea_lovers:
//!   trigger: { segment: "bought_category:tea" }   # or { event: signed_up }, or { notification: badge_awarded }
//!   steps:
//!     - { wait: 1h, template: tea_welcome }
//!     - { wait: 7d, template: tea_reminder }
//!   only: { field: consented, op: "=", value: true }
//!   exit: [order_completed]
//!   priority: browse
//! ```

use crate::email::{
    Span,
    definitions::{Condition, Problem, shown, wrong},
};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Steps of one campaign.
const STEPS: usize = 20;

/// One campaign.
#[derive(Clone, Debug, PartialEq)]
pub struct Campaign {
    /// Its id.
    pub id: String,
    /// What starts it.
    pub trigger: Trigger,
    /// What is sent, and when.
    pub steps: Vec<Step>,
    /// Who goes first when two are due at one moment; transactional mails have no cap.
    pub priority: Priority,
    /// Must hold when a step is released, or the campaign ends.
    pub only: Option<Condition>,
    /// Event types that end it.
    pub exit: Vec<String>,
    /// So long after its start, what is left of it is dropped.
    pub drop_after: Option<Span>,
    /// It starts again at the earliest so long after it last started.
    pub again_after: Option<Span>,
    /// Per cent of users, chosen by a stable hash, who never get it.
    pub holdout: u8,
    /// Goes into the data of its mails.
    pub data: Map<String, Value>,
}

/// One mail of a campaign.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// So long after the campaign's start.
    pub wait: Span,
    /// Name of its template.
    pub template: String,
}

/// What starts a campaign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// A built-in campaign's own.
    BuiltIn,
    /// An event of this type.
    Event(String),
    /// A segment entered; it ends when the segment is left.
    Segment(String),
    /// A notification of this kind.
    Notification(String),
}

/// Who goes first, first to last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "named after the campaigns")]
pub enum Priority {
    Transactional,
    BackInStock,
    AbandonedCart,
    PriceDrop,
    Tier,
    Review,
    Birthday,
    Browse,
    WinBack,
}

/// The fields that a shop may state; what is absent stays as it was.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Fields {
    name: Option<String>,
    description: Option<String>,
    enabled: Option<bool>,
    trigger: Option<Value>,
    steps: Option<Vec<Step>>,
    segment: Option<String>,
    only: Option<Value>,
    exit: Option<Vec<String>>,
    priority: Option<Priority>,
    drop_after: Option<Span>,
    again_after: Option<Span>,
    holdout: Option<u8>,
    data: Option<Map<String, Value>>,
}

/// Reads a campaign, over `base` where there is one; `None` is one switched off.
///
/// # Errors
/// Names the path of what is wrong.
pub fn read(id: &str, value: &Value, base: Option<&Campaign>, spend_window: Span) -> Result<Option<Campaign>, Problem> {
    if id.is_empty() || id.chars().any(char::is_control) {
        return wrong("campaign_id", "is empty or has control characters");
    }
    let fields: Fields = tillflow_schemas::json::from_value(value.clone()).or_else(|e| wrong(id, e.to_string()))?;
    let at = |field: &str| format!("{id}.{field}");
    let trigger = match (&fields.trigger, base) {
        (None, Some(base)) => base.trigger.clone(),
        (None, None) => return wrong(at("trigger"), "is missing: { event: … }, { segment: … } or { notification: … }"),
        (Some(_), Some(base)) if base.trigger == Trigger::BuiltIn => {
            return wrong(at("trigger"), "a built-in campaign keeps its own; take another campaign_id");
        }
        (Some(value), _) => trigger(value, &at("trigger"))?,
    };
    let steps = fields.steps.clone().or_else(|| base.map(|b| b.steps.clone())).unwrap_or_default();
    check_steps(&steps, &at("steps"))?;
    let only = match (&fields.only, &fields.segment) {
        (Some(_), Some(_)) => return wrong(at("segment"), "does not belong beside only; use { field: segments, op: contains, value: … }"),
        (Some(only), None) => Some(Condition::parse(only, &at("only"), spend_window)?),
        (None, Some(name)) => {
            let test = serde_json::json!({"field": "segments", "op": "contains", "value": name});
            Some(Condition::parse(&test, &at("segment"), spend_window)?)
        }
        (None, None) => base.and_then(|b| b.only.clone()),
    };
    let holdout = fields.holdout.or(base.map(|b| b.holdout)).unwrap_or(0);
    if holdout > 100 {
        return wrong(at("holdout"), format!("{holdout} is not between 0 and 100 per cent"));
    }
    if fields.enabled == Some(false) {
        return Ok(None);
    }
    Ok(Some(Campaign {
        id: id.to_owned(),
        trigger,
        steps,
        priority: fields.priority.or(base.map(|b| b.priority)).unwrap_or(Priority::WinBack),
        only,
        exit: fields.exit.clone().or_else(|| base.map(|b| b.exit.clone())).unwrap_or_default(),
        drop_after: fields.drop_after.or(base.and_then(|b| b.drop_after)),
        again_after: fields.again_after.or(base.and_then(|b| b.again_after)),
        holdout,
        data: fields.data.clone().or_else(|| base.map(|b| b.data.clone())).unwrap_or_default(),
    }))
}

fn trigger(value: &Value, path: &str) -> Result<Trigger, Problem> {
    let one = value.as_object().filter(|o| o.len() == 1).and_then(|o| o.iter().next());
    let Some((kind, Value::String(name))) = one else {
        return wrong(path, format!("{} is not {{ event: … }}, {{ segment: … }} or {{ notification: … }}", shown(value)));
    };
    match kind.as_str() {
        "event" => Ok(Trigger::Event(name.clone())),
        "segment" => Ok(Trigger::Segment(name.clone())),
        "notification" => Ok(Trigger::Notification(name.clone())),
        _ => wrong(format!("{path}.{kind}"), "is not one of event, segment, notification"),
    }
}

fn check_steps(steps: &[Step], path: &str) -> Result<(), Problem> {
    if steps.is_empty() || steps.len() > STEPS {
        return wrong(path, format!("a campaign has 1 to {STEPS} steps, each {{ wait, template }}"));
    }
    for (i, pair) in steps.windows(2).enumerate() {
        if let [earlier, later] = pair
            && earlier.wait >= later.wait
        {
            return wrong(format!("{path}[{}].wait", i + 1), format!("{} is not above the {} before it", later.wait, earlier.wait));
        }
    }
    for (i, step) in steps.iter().enumerate() {
        if step.template.is_empty() {
            return wrong(format!("{path}[{i}].template"), "is empty");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn own(value: Value) -> Result<Option<Campaign>, String> {
        read("tea", &value, None, Span::days(365)).map_err(|p| p.to_string())
    }

    #[test]
    fn an_own_campaign_and_a_changed_built_in_one_share_a_form() {
        let steps = json!([{"wait": "1h", "template": "tea"}]);
        let tea = own(json!({"trigger": {"segment": "interest:tea"}, "steps": steps, "priority": "browse"})).unwrap().unwrap();
        assert_eq!((tea.trigger.clone(), tea.priority), (Trigger::Segment("interest:tea".into()), Priority::Browse));
        let changed = read("tea", &json!({"holdout": 10}), Some(&tea), Span::days(365)).unwrap().unwrap();
        assert_eq!(changed, Campaign { holdout: 10, ..tea.clone() });
        assert_eq!(read("tea", &json!({"enabled": false}), Some(&tea), Span::days(365)).unwrap(), None);
        let built_in = Campaign { trigger: Trigger::BuiltIn, ..tea };
        let error = read("tea", &json!({"trigger": {"event": "signed_up"}}), Some(&built_in), Span::days(365)).unwrap_err();
        assert!(error.to_string().contains("tea.trigger: a built-in campaign keeps its own"), "{error}");
    }

    #[test]
    fn a_mistake_is_said_with_its_path() {
        let trigger = json!({"event": "signed_up"});
        let steps = json!([{"wait": "1h", "template": "t"}]);
        for (value, error) in [
            (json!({"steps": steps}), "tea.trigger: is missing"),
            (json!({"trigger": {"evnt": "x"}, "steps": steps}), "tea.trigger.evnt: is not one of"),
            (json!({"trigger": trigger}), "tea.steps: a campaign has 1 to 20 steps"),
            (json!({"trigger": trigger, "steps": [{"wait": "2h", "template": "a"}, {"wait": "1h", "template": "b"}]}), "tea.steps[1].wait"),
            (json!({"trigger": trigger, "steps": [{"wait": "soon", "template": "a"}]}), "steps[0].wait"),
            (json!({"trigger": trigger, "steps": steps, "only": {"field": "x"}}), "tea.only.field: 'x'"),
            (json!({"trigger": trigger, "steps": steps, "holdout": 101}), "tea.holdout"),
            (json!({"trigger": trigger, "steps": steps, "prioritty": "tier"}), "prioritty"),
            (json!({"trigger": trigger, "steps": steps, "priority": "highest"}), "priority"),
        ] {
            let found = own(value.clone()).unwrap_err();
            assert!(found.contains(error), "{value}: {found}, not {error}");
        }
    }
}
