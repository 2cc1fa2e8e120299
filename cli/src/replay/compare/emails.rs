//! E-mails of two replays.

use super::{Both, EXAMPLES};
use crate::commands::Out;
use anyhow::Result;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use tillflow_schemas::{EmailTrigger, Timestamp, UserId};

/// Triggers, collected. Their ids are the same for the same decision.
#[derive(Debug, Default)]
pub struct Emails {
    triggers: BTreeMap<String, Both<Option<EmailTrigger>>>,
}

impl Emails {
    /// Takes an `email_triggers` record.
    pub fn trigger(&mut self, after: bool, value: &Value) {
        if let Ok(trigger) = serde_json::from_value::<EmailTrigger>(value.clone()) {
            let id = trigger.trigger_id.clone();
            *self.triggers.entry(id).or_default().side(after) = Some(trigger);
        }
    }

    /// What differs.
    pub fn compared(self) -> EmailDifference {
        let mut found = EmailDifference::default();
        for (trigger_id, both) in self.triggers {
            for (after, trigger) in [(false, &both.before), (true, &both.after)] {
                if let Some(trigger) = trigger {
                    *found.triggers.side(after) += 1;
                    *found.by_campaign.entry(trigger.campaign_id.to_string()).or_default().side(after) += 1;
                }
            }
            let change = match (&both.before, &both.after) {
                (None, Some(_)) => Change::Added,
                (Some(_), None) => Change::Dropped,
                (Some(before), Some(after)) if before != after => Change::Changed,
                _ => continue,
            };
            *match change {
                Change::Added => &mut found.added,
                Change::Dropped => &mut found.dropped,
                Change::Changed => &mut found.changed,
            } += 1;
            if let Some(trigger) = both.after.or(both.before).filter(|_| found.examples.len() < EXAMPLES) {
                let EmailTrigger { user_id, campaign_id, because, send_after, .. } = trigger;
                let campaign_id = campaign_id.into_string();
                found.examples.push(EmailExample { trigger_id, change, user_id, campaign_id, because, send_after });
            }
        }
        found
    }
}

/// How e-mails differ.
#[derive(Debug, Default, Serialize)]
pub struct EmailDifference {
    triggers: Both<u64>,
    added: u64,
    dropped: u64,
    changed: u64,
    by_campaign: BTreeMap<String, Both<u64>>,
    examples: Vec<EmailExample>,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Change {
    Added,
    Dropped,
    Changed,
}

/// An e-mail that differs.
#[derive(Debug, Serialize)]
struct EmailExample {
    trigger_id: String,
    change: Change,
    user_id: UserId,
    campaign_id: String,
    because: String,
    send_after: Timestamp,
}

impl EmailDifference {
    /// Says it in words.
    pub fn tell(&self, out: Out<'_>) -> Result<()> {
        let Self { triggers, added, dropped, changed, .. } = self;
        writeln!(
            out,
            "E-mails: {} instead of {}: {added} more, {dropped} no longer, {changed} with other contents.",
            triggers.after, triggers.before
        )?;
        for (campaign, n) in self.by_campaign.iter().filter(|(_, n)| n.before != n.after) {
            writeln!(out, "  {campaign}: {} instead of {}", n.after, n.before)?;
        }
        for e in &self.examples {
            let what = match e.change {
                Change::Added => "would get",
                Change::Dropped => "would not get",
                Change::Changed => "would get another",
            };
            writeln!(out, "  {} {what} {} after {}: {}", e.user_id, e.campaign_id, e.send_after, e.because)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn mails_are_known_by_their_ids() {
        let mut emails = Emails::default();
        let mail = |id: &str, campaign: &str, to: &str| {
            json!({
                "trigger_id": id, "user_id": "u1", "campaign_id": campaign, "template": "t", "to": to, "data": {}, "because": "a cart was left",
                "send_after": "2026-03-01T10:00:00.000Z",
            })
        };
        for (after, value) in [
            (false, mail("1", "cart", "a@b")),
            (true, mail("1", "cart", "a@b")),
            (false, mail("2", "cart", "a@b")),
            (true, mail("3", "review", "a@b")),
            (false, mail("4", "cart", "a@b")),
            (true, mail("4", "cart", "c@d")),
        ] {
            emails.trigger(after, &value);
        }
        let found = serde_json::to_value(emails.compared()).unwrap();
        assert_eq!((&found["added"], &found["dropped"], &found["changed"]), (&json!(1), &json!(1), &json!(1)));
        assert_eq!(found["by_campaign"], json!({"cart": {"before": 3, "after": 2}, "review": {"before": 0, "after": 1}}));
        assert_eq!(found["examples"][0]["change"], "dropped");
    }
}
