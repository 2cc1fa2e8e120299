//! Campaigns: what starts one waits as a run with a timer; when a step is due, one decision says whether it is
//! released, and `email_triggers` or `email_results` says what came of it.

mod built_in;
mod content;
mod definition;
mod gate;
mod release;
mod runs;
mod starts;
#[cfg(test)]
mod tests;

pub use definition::{Campaign, Priority, Step, Trigger};
pub use runs::Campaigns;
pub use starts::Occasion;

use super::definitions::Problem;
use serde_json::{Map, Value};

/// What is wrong with a campaign of the topic `campaigns`, under default settings: for those who take it in.
pub fn problems(campaign: &tillflow_schemas::Campaign) -> Option<Problem> {
    let base = built_in::all().into_iter().find(|b| b.id == campaign.campaign_id);
    read_record(campaign, base.as_ref(), super::Span::days(365)).err()
}

fn read_record(
    campaign: &tillflow_schemas::Campaign,
    base: Option<&Campaign>,
    spend_window: super::Span,
) -> Result<Option<Campaign>, Problem> {
    let fields: Map<String, Value> = campaign.fields.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    definition::read(&campaign.campaign_id, &Value::Object(fields), base, spend_window)
}
