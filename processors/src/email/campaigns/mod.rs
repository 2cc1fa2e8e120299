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

/// What is wrong with a campaign of the topic `campaigns`, under default settings: for those who take it in. One that
/// states no trigger may change a campaign of the configuration, so only what it states is looked at.
pub fn problems(campaign: &tillflow_schemas::Campaign) -> Option<Problem> {
    let mut built_in = built_in::all();
    let known = built_in.iter().position(|b| b.id == campaign.campaign_id);
    let stands_for_another = known.is_none() && !campaign.fields.contains_key("trigger");
    let base = known.or(stands_for_another.then_some(0)).map(|i| built_in.swap_remove(i));
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
