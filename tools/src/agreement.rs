//! What is shown before a signature, and what is asked: how much an order starts or stops, from when on and for how many
//! devices; above 10 % of the fleet their number has to be said.
//!
//! Always true: nothing asks about what only stops something, and nothing keeps it from being signed.

use std::io::IsTerminal as _;

use jiff::Timestamp;
use sutler_control::State;
use sutler_control::draft::Draft;
use sutler_control::fleet::{Effect, Reach};
use sutler_control::outlook::Outlook;
use sutler_node::failure::{Failure, Kind};
use sutler_orders::text::Utc;

use crate::signing::Office;

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signs {
    /// A proposal, that nobody signs yet.
    Nothing,
    /// Orders, for as many devices as `--yes` says, if it says any.
    Orders(Option<u64>),
}

/// Why it is not signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    OtherYes,
    NoTerminal,
    OtherTyped,
}

/// Says what a draft starts or stops, and how many devices it reaches. One that starts something on many is signed only if
/// somebody says as many.
pub(crate) fn agree(
    office: &Office,
    state: &State,
    draft: &Draft,
    signs: Signs,
) -> Result<(), Failure> {
    let effect = Effect::of(draft, state);
    if effect.is_nothing() {
        return Ok(());
    }
    if let Some(outlook) = Outlook::of(draft, state, Utc::of(Timestamp::now())) {
        let what = if effect.starts() { "starts" } else { "stops" };
        eprintln!("it {what} {outlook}");
    }
    let fleet = match office.fleet(state) {
        // Nothing keeps what only stops from being signed.
        Err(failure) if !effect.starts() => {
            eprintln!("how many devices it reaches is unknown: {failure}");
            return Ok(());
        }
        fleet => fleet?,
    };
    let Some(reach) = fleet.reach(&effect) else {
        eprintln!("how many devices it reaches is unknown: none has reported");
        return Ok(());
    };
    let Reach { devices, sites, fleet } = reach;
    eprintln!("it reaches {devices} of {fleet} devices, at {sites} sites");
    let Signs::Orders(yes) = signs else { return Ok(()) };
    if !effect.starts() || !reach.is_asked() {
        return Ok(());
    }
    said(devices, yes)?.map_or(Ok(()), |refusal| {
        let what = format!("sign for {devices} of {fleet} devices: {}", refusal.why());
        Err(Failure::new(Kind::Refused, what).with_help(format!("if it is meant, --yes {devices}")))
    })
}

/// Finds out whether somebody says that so many devices are meant, and returns why that is not so.
fn said(devices: u64, yes: Option<u64>) -> Result<Option<Refusal>, Failure> {
    if let Some(yes) = yes {
        return Ok((yes != devices).then_some(Refusal::OtherYes));
    }
    if !std::io::stdin().is_terminal() {
        return Ok(Some(Refusal::NoTerminal));
    }
    eprint!("That is more than 10 % of the fleet. To sign, type how many devices: ");
    let mut typed = String::new();
    std::io::stdin().read_line(&mut typed).map_err(|error| {
        let kind = Kind::of_io(&error, Kind::Interrupted);
        Failure::because(kind, "ask how many devices", &error)
    })?;
    Ok((!is_number(&typed, devices)).then_some(Refusal::OtherTyped))
}

/// Returns whether this number was typed, and nothing else.
fn is_number(typed: &str, devices: u64) -> bool {
    typed.trim() == devices.to_string()
}

impl Refusal {
    const fn why(self) -> &'static str {
        match self {
            Self::OtherYes => "--yes says another number",
            Self::NoTerminal => "that is more than 10 % of the fleet, and nobody has said so",
            Self::OtherTyped => "another number was typed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_number_itself_is_the_number() {
        assert!(is_number("12\n", 12) && is_number(" 12\r\n", 12));
        for typed in ["", "\n", "1\n", "121\n", "012\n", "+12\n", "12.0\n", "1 2\n", "yes\n", "y"] {
            assert!(!is_number(typed, 12), "{typed:?}");
        }
    }

    #[test]
    fn a_script_says_the_number_or_is_refused() {
        assert_eq!(said(12, Some(12)).unwrap(), None);
        assert_eq!(said(12, Some(11)).unwrap(), Some(Refusal::OtherYes));
    }
}
