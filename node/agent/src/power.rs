//! Whether the device runs on a battery, as the system says.

use std::fs;
use std::path::Path;

/// Returns whether no mains supply is online although there is one; `false` where the system does not say. Reads files.
pub(crate) fn is_on_battery() -> bool {
    is_on_battery_below(Path::new("/sys/class/power_supply"))
}

fn is_on_battery_below(folder: &Path) -> bool {
    let Ok(supplies) = fs::read_dir(folder) else { return false };
    let says = |path: &Path, file: &str, text: &str| {
        fs::read_to_string(path.join(file)).is_ok_and(|found| found.trim() == text)
    };
    let supplies: Vec<_> = supplies.flatten().map(|supply| supply.path()).collect();
    let mut mains = supplies.iter().filter(|supply| says(supply, "type", "Mains")).peekable();
    mains.peek().is_some() && !mains.any(|supply| says(supply, "online", "1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_on_battery_where_no_mains_supply_is_online() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_on_battery_below(&dir.path().join("absent")));
        let supply = |name: &str, kind: &str, online: &str| {
            let folder = dir.path().join(name);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("type"), format!("{kind}\n")).unwrap();
            fs::write(folder.join("online"), format!("{online}\n")).unwrap();
        };
        supply("BAT0", "Battery", "0");
        assert!(!is_on_battery_below(dir.path()));
        supply("AC", "Mains", "0");
        assert!(is_on_battery_below(dir.path()));
        supply("AC2", "Mains", "1");
        assert!(!is_on_battery_below(dir.path()));
    }
}
