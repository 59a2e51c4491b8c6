//! The part of `sutler org init` that makes a manifest: keys, the first root and targets, and the repository.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use sutler_control::draft::{Draft, DraftError};
use sutler_control::key::{self, NamedKey, Protection, ReadPublicError};
use sutler_control::organisation::ONLINE;
use sutler_control::preset::{self, Approvers, EVERYBODY, Preset, Signers, Staff};
use sutler_node::failure::{Failure, Kind};
use sutler_orders::audience::Audience;
use sutler_protocol::manifest::key::Key;
use sutler_protocol::manifest::sign::ProposeError;
use sutler_protocol::manifest::{RoleName, Signed};
use sutler_protocol::name::Label;

use crate::command::key::create_failure;
use crate::output::{Output, Stop};
use crate::signing::{Office, PassphraseArgs, key_failure, open, settle, state};

/// How an organisation's manifest begins.
#[derive(Debug, Args)]
pub(crate) struct Found {
    /// Who signs what. Without it there is a certificate authority and no manifest.
    #[arg(long, value_enum)]
    preset: Option<PresetName>,
    /// The public half of a root key: three for team, five for enterprise. solo makes its own two.
    #[arg(long = "root", value_name = "NAME.pub", requires = "preset")]
    roots: Vec<PathBuf>,
    /// Whose key names contents; the root keys unless given.
    #[arg(long = "import", value_name = "NAME.pub", requires = "preset")]
    import: Vec<PathBuf>,
    /// Who approves for a scope, and how many have to. The scope `all` is every device, any other the ring of its
    /// name. One approver for all unless given.
    #[arg(long = "approver", value_name = "SCOPE=A.pub,B.pub:K", requires = "preset")]
    approvers: Vec<ApproverArg>,
    /// Who says from then on who approves for a scope, and how many have to: a directorate that changes its own staff. Its
    /// heads approve as well unless an approver is given.
    #[arg(long = "directorate", value_name = "SCOPE=A.pub,B.pub:K", requires = "preset")]
    directorates: Vec<ApproverArg>,
    /// Whom a scope covers instead, as JSON, such as `qa={"ring":"qa","sites":["paris"]}`.
    #[arg(long = "covers", value_name = "SCOPE=JSON", requires = "preset")]
    covers: Vec<CoversArg>,
    /// Sign the first root and targets with these keys at once; else they wait in drafts/.
    #[arg(long = "key", value_name = "NAME.key", requires = "preset")]
    keys: Vec<PathBuf>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PresetName {
    /// One admin with two keys: a laptop's and a sealed copy. There is no second person.
    Solo,
    /// Root by two of three, one approver.
    Team,
    /// Root by three of five, a directorate or approvers of each scope.
    Enterprise,
}

#[derive(Clone, Debug)]
struct ApproverArg {
    scope: Label,
    files: Vec<PathBuf>,
    threshold: u64,
}

#[derive(Clone, Debug)]
struct CoversArg {
    scope: Label,
    covers: Audience,
}

impl Found {
    /// Returns whether a manifest is wanted.
    pub(crate) fn is_wanted(&self) -> bool {
        self.preset.is_some()
    }

    /// Makes keys, root and targets in the organisation's folder, which nobody else knows yet.
    pub(crate) fn run(&self, folder: &Path, output: Output) -> Result<(), Stop> {
        let Some(name) = self.preset else { return Ok(()) };
        let preset = match name {
            PresetName::Solo => Preset::Solo,
            PresetName::Team => Preset::Team,
            PresetName::Enterprise => Preset::Enterprise,
        };
        let file = |error| {
            Failure::because(Kind::of_io(&error, Kind::File), "make the organisation", &error)
        };
        for part in ["online", "repository", "drafts"] {
            std::fs::create_dir(folder.join(part)).map_err(file)?;
        }
        let mut own = Vec::new();
        let online: Vec<Key> = ONLINE
            .into_iter()
            .map(|name| {
                let path = folder.join("online").join(format!("{name}.key"));
                let made = key::create(&path, &Protection::Mode);
                made.map(|named| named.key).map_err(|error| create_failure(&error))
            })
            .collect::<Result<_, _>>()?;
        let mut roots = read_all(&self.roots)?;
        if matches!(preset, Preset::Solo) && roots.is_empty() {
            let passphrase = self.passphrase.choose()?;
            std::fs::create_dir(folder.join("keys")).map_err(file)?;
            for name in ["laptop", "sealed"] {
                let path = folder.join("keys").join(format!("{name}.key"));
                let made = key::create(&path, &Protection::Passphrase(&passphrase));
                roots.push(made.map_err(|error| create_failure(&error))?);
                own.push(key::open(&path, &passphrase).map_err(|error| key_failure(&error))?);
            }
        }
        let staff = self.staff(roots, &online)?;
        let (root, targets) = preset::documents(preset, &staff, Timestamp::now())
            .map_err(|error| Failure::from_error(Kind::Usage, &error))?;
        let mut draft = Draft::new();
        draft.set_root(Signed::propose(&root).map_err(|error| unproposed(&error))?);
        let targets = Signed::propose(&targets).map_err(|error| unproposed(&error))?;
        draft.set_role(RoleName::targets(), targets);
        for path in &self.keys {
            let passphrase = self.passphrase.get(&format!("Passphrase of {}", path.display()))?;
            own.push(key::open(path, &passphrase).map_err(|error| key_failure(&error))?);
        }
        for key in &own {
            draft.sign(key, None).map_err(|error| Failure::from_error(Kind::Refused, &error))?;
        }
        let office = Office::of(open(folder)?);
        output.line(preset.warning())?;
        let is_published = settle(&office, None, &draft, output)?;
        let state = is_published.then(|| state(&office)).transpose()?;
        for (role, document) in preset::directorates(&staff, Timestamp::now())
            .map_err(|error| Failure::from_error(Kind::Usage, &error))?
        {
            let mut draft = Draft::new();
            let document = Signed::propose(&document).map_err(|error| unproposed(&error))?;
            draft.set_role(role, document);
            // What waits for the first targets is signed once they are there.
            for key in own.iter().filter(|_| is_published) {
                match draft.sign(key, state.as_ref()) {
                    Ok(_) | Err(DraftError::NotASigner { .. }) => {}
                    Err(error) => return Err(Failure::from_error(Kind::Refused, &error).into()),
                }
            }
            settle(&office, state.as_ref(), &draft, output)?;
        }
        Ok(())
    }

    fn staff(&self, root: Vec<NamedKey>, online: &[Key]) -> Result<Staff, Failure> {
        let mut approvers = Vec::new();
        let is_without = |one: &&ApproverArg| {
            self.approvers.iter().all(|approvers| approvers.scope != one.scope)
        };
        // The heads of a directorate for which nobody is named.
        let heads = self.directorates.iter().filter(is_without);
        for one in self.approvers.iter().chain(heads) {
            let scope = one.scope.clone();
            let given = self.covers.iter().find(|covers| covers.scope == scope);
            let covers = match given {
                Some(given) => given.covers.clone(),
                None if scope.as_str() == EVERYBODY => Audience::default(),
                None => Audience { ring: Some(scope.clone()), ..Audience::default() },
            };
            let heads = self.directorates.iter().find(|heads| heads.scope == scope);
            let heads = heads.map(ApproverArg::signers).transpose()?;
            approvers.push(Approvers { scope, covers, signers: one.signers()?, heads });
        }
        let stray = self
            .covers
            .iter()
            .find(|one| approvers.iter().all(|approvers: &Approvers| approvers.scope != one.scope));
        if let Some(one) = stray {
            let scope = &one.scope;
            let what = format!(
                "--covers names the scope {scope}, which has no --approver or --directorate"
            );
            return Err(Failure::new(Kind::Usage, what));
        }
        let import = read_all(&self.import)?;
        let own = |position: usize| vec![online[position].clone()];
        let (snapshot, timestamp, halts) = (own(0), own(1), own(2));
        Ok(Staff { root, import, approvers, snapshot, timestamp, halts })
    }
}

fn unproposed(error: &ProposeError) -> Failure {
    Failure::from_error(Kind::Usage, error)
}

pub(crate) fn read_all(paths: &[PathBuf]) -> Result<Vec<NamedKey>, Failure> {
    let read = |path: &PathBuf| {
        NamedKey::read(path).map_err(|error| {
            let kind = match &error {
                ReadPublicError::Id { .. } | ReadPublicError::Kind { .. } => Kind::Refused,
                _ => Kind::File,
            };
            Failure::from_error(kind, &error)
        })
    };
    paths.iter().map(read).collect()
}

impl ApproverArg {
    fn signers(&self) -> Result<Signers, Failure> {
        Ok(Signers { keys: read_all(&self.files)?, threshold: self.threshold })
    }
}

impl FromStr for ApproverArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shape = || "it is written SCOPE=A.pub,B.pub:K".to_owned();
        let (scope, rest) = text.split_once('=').ok_or_else(shape)?;
        let (files, threshold) = match rest.rsplit_once(':') {
            Some((files, threshold)) => (files, threshold.parse().map_err(|_| shape())?),
            None => (rest, 1),
        };
        let scope = scope.parse().map_err(|error| format!("{error}"))?;
        Ok(Self { scope, files: files.split(',').map(PathBuf::from).collect(), threshold })
    }
}

impl FromStr for CoversArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scope, json) =
            text.split_once('=').ok_or_else(|| "it is written SCOPE=JSON".to_owned())?;
        let scope = scope.parse().map_err(|error| format!("{error}"))?;
        let covers = serde_json::from_str(json).map_err(|error| error.to_string())?;
        Ok(Self { scope, covers })
    }
}
