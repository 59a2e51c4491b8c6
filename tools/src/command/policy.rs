//! `sutler policy effective`: how this device behaves, each value with where it comes from.

use clap::Args;

use crate::access::DataArgs;
use crate::command::explain::shown;
use crate::output::{Output, Stop, printable, table};

const EXAMPLES: &str = "\
Examples:
  sutler policy effective --data /var/lib/sutler
  sutler policy effective --data ./anna --json | jq '.[].settings[] | select(.name == \"mode\")'";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Effective {
    #[command(flatten)]
    data: DataArgs,
}

impl Effective {
    pub(crate) fn run(&self, output: Output) -> Result<(), Stop> {
        let view = shown(&self.data)?;
        let mut settings = table(["SCOPE", "SETTING", "VALUE", "FROM"]);
        for policy in &view.policies {
            for setting in &policy.settings {
                let row = [&policy.scope, &setting.name, &setting.value, &setting.source];
                settings.add_row(row.map(|text| printable(text)));
            }
        }
        output.table(&settings)?;
        output.json(&view.policies)
    }
}
