//! Who has joined, and by which token: what the enrolment port decides by.
//!
//! One file for each key that asked and was not refused. It is written before the answer leaves, so
//! that whoever is killed between any two lines, here or there, asks again with the same key and is
//! given the same certificate. How often a token was used is the number of such files that name it:
//! there is no counter that could disagree with them.
//!
//! `sutler device` changes the same files while the daemon runs: each change holds the folder's lock,
//! and reads what is there under it. Names and uses are also kept in memory, because only the daemon
//! adds to them.
//!
//! Invariants: no secret of a token is kept; a key has one record and a name one that is not retired;
//! a record that cannot be read means that nothing is answered, never that nobody has joined.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use sutler_protocol::frame::detail;
use sutler_protocol::join::{Join, JoinRefusal};
use sutler_swarm::enrol::csr::ProvenKey;
use sutler_swarm::enrol::renew::due;
use sutler_swarm::enrol::token::{Grant, NotGranted, Presented, TokenId};
use sutler_swarm::enrol::{Granted, JoinOutcome, Registrar};
use sutler_swarm::gateway::causes;
use sutler_swarm::identity::{
    Authority, Credentials, IssueError, KeyHash, Member, PeerName, Revocations, Validity,
};

mod folder;
mod makers;
mod record;
mod roots;

use folder::Folder;
pub use folder::OpenError;
pub use makers::TokenMakers;
pub use record::{Record, Standing};
pub use roots::RootFolder;

/// How long a member's certificate lives unless told otherwise: 30 days, renewed after 20, and good for
/// renewal for 30 more.
pub const MEMBER_LIFETIME: Duration = Duration::from_hours(30 * 24);

/// What the enrolment port stands on beside the records.
pub struct Powers {
    /// Certifies members: the intermediate of `sutler org intermediate`.
    pub authority: Authority,
    /// Who may make tokens.
    pub token_makers: TokenMakers,
    /// The published `root.json` files.
    pub root_files: RootFolder,
    /// Who is given nothing any more.
    pub revocations: Revocations,
    /// How long certificates live.
    pub lifetime: Duration,
}

/// Control's members, in a folder of its data.
pub struct Members {
    powers: Powers,
    roots: Vec<CertificateDer<'static>>,
    folder: Folder,
    known: Mutex<Known>,
}

/// What only the daemon adds to.
#[derive(Default)]
struct Known {
    by_name: BTreeMap<PeerName, KeyHash>,
    uses: BTreeMap<TokenId, u32>,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Nobody has the name, or several have its last part.
    #[error("{0} is no member, or not the only one of that name")]
    Unknown(String),
    /// It is not in a state in which that could be done.
    #[error("{name} is {standing}")]
    Standing {
        /// Whose record.
        name: PeerName,
        /// What it says.
        standing: Standing,
    },
    /// The disk refused.
    #[error(transparent)]
    Folder(OpenError),
}

/// What may be changed of a member by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A held machine may have its certificate.
    Accept,
    /// A held machine is turned down.
    Reject,
    /// A member renews nothing any more, and its name is free. Its certificate ends by itself; to
    /// end it at once, revoke it.
    Retire,
}

impl Members {
    /// Opens the records in the folder `dir`, or makes it. Reads all of them.
    ///
    /// # Errors
    ///
    /// [`OpenError`] also where a single record cannot be read: it might be the one that counts.
    pub fn open(dir: &Path, powers: Powers) -> Result<Self, OpenError> {
        let folder = Folder::open(dir)?;
        let mut known = Known::default();
        for record in folder.all()? {
            known.add(&record);
        }
        let roots = CertificateDer::pem_slice_iter(powers.authority.roots_pem().as_bytes());
        let roots = roots.filter_map(Result::ok).collect();
        Ok(Self { powers, roots, folder, known: Mutex::new(known) })
    }

    /// Returns every record, by name.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn list(dir: &Path) -> Result<Vec<Record>, OpenError> {
        let mut records = Folder::open(dir)?.all()?;
        records.sort_by(|one, other| one.name.cmp(&other.name).then(one.asked.cmp(&other.asked)));
        Ok(records)
    }

    /// Changes the record of the member `who`: its full name, or its id alone where that is enough.
    /// The daemon need not run, and may.
    ///
    /// # Errors
    ///
    /// [`ChangeError`]; nothing is changed.
    pub fn change(
        dir: &Path,
        who: &str,
        change: Change,
        by: &str,
        now: UnixTime,
    ) -> Result<Record, ChangeError> {
        let folder = Folder::open(dir).map_err(ChangeError::Folder)?;
        let _lock = folder.lock().map_err(ChangeError::Folder)?;
        let all = folder.all().map_err(ChangeError::Folder)?;
        let is_meant = |record: &&Record| {
            record.name.to_string() == who || record.name.member().id().as_str() == who
        };
        let mut found: Vec<&Record> = all.iter().filter(is_meant).collect();
        // A name that several machines had one after the other means the one that has it now.
        if found.len() > 1 {
            found.retain(|record| record.standing != Standing::Retired);
        }
        let [record] = found[..] else { return Err(ChangeError::Unknown(who.to_owned())) };
        let (from, to): (&[Standing], _) = match change {
            Change::Accept => (&[Standing::Held], Standing::Accepted),
            Change::Reject => (&[Standing::Held], Standing::Retired),
            Change::Retire => (&[Standing::Member, Standing::Accepted], Standing::Retired),
        };
        if !from.contains(&record.standing) {
            let (name, standing) = (record.name.clone(), record.standing);
            return Err(ChangeError::Standing { name, standing });
        }
        let changed = Record { standing: to, ..record.clone() }.signed_off(by, now);
        folder.put(&changed).map_err(ChangeError::Folder)?;
        Ok(changed)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Whole between statements, so that a panic elsewhere does not spoil it.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides about a key that has not asked before.
    fn admit(
        &self,
        asks: &Asks<'_>,
        known: &mut Known,
        from: IpAddr,
        now: UnixTime,
    ) -> Result<Record, JoinRefusal> {
        let Asks { grant, token, key, replace } = *asks;
        let used = known.uses.get(&token).copied().unwrap_or(0);
        let organisation = self.powers.authority.organisation();
        grant.admits(organisation, from, used, now).map_err(|why| match why {
            NotGranted::Expired => JoinRefusal::Expired,
            NotGranted::UsedUp => JoinRefusal::UsedUp,
            NotGranted::Network => JoinRefusal::Network,
            NotGranted::Organisation => JoinRefusal::Token,
        })?;
        let name = PeerName::new(organisation.clone(), grant.member(&token, &key.hash()));
        if let Some(holder) = known.by_name.get(&name)
            && let Some(holder) = self.folder.get(holder)?
            && holder.standing != Standing::Retired
        {
            // Only a token that was made for this very name takes it from whoever has it.
            if !replace || grant.name.is_none() {
                return Err(JoinRefusal::Taken);
            }
            // Before the new record: killed in between, the name is free and the joiner asks again.
            let retired = Record { standing: Standing::Retired, ..holder };
            self.folder.put(&retired.signed_off("join --replace", now))?;
        }
        let standing = if grant.hold { Standing::Held } else { Standing::Accepted };
        Ok(Record::new(name, key.hash(), Some(token), standing, from, now))
    }

    /// Returns the certificate of a record, issuing it if it has none yet.
    fn certified(
        &self,
        record: Record,
        key: &ProvenKey,
        now: UnixTime,
    ) -> Result<Record, JoinRefusal> {
        let certified = match record.standing {
            Standing::Accepted => {
                let chain = self.certify(record.name.member(), key, now)?;
                Record { standing: Standing::Member, chain: Some(chain), ..record }
            }
            _ => record,
        };
        self.folder.put(&certified)?;
        Ok(certified)
    }

    fn certify(
        &self,
        member: &Member,
        key: &ProvenKey,
        now: UnixTime,
    ) -> Result<String, JoinRefusal> {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_secs());
        let mut validity = Validity::starting(start, self.powers.lifetime)
            .no_later_than(self.powers.authority.ends());
        match self.powers.revocations.now().members.get(member) {
            Some(None) => return Err(JoinRefusal::Revoked),
            Some(Some(until)) if until.as_secs() > now.as_secs() => {
                return Err(JoinRefusal::Revoked);
            }
            // What begins earlier is revoked: the slack for slow clocks must not reach there.
            Some(Some(until)) => {
                let until = SystemTime::UNIX_EPOCH + Duration::from_secs(until.as_secs());
                validity = validity.no_sooner_than(until);
            }
            None => {}
        }
        let certified = self.powers.authority.certify(member.clone(), validity, key);
        certified
            .map_err(|error: IssueError| JoinRefusal::Failed { detail: detail(&error.to_string()) })
    }

    fn granted(&self, record: &Record, grant: &Grant) -> Result<Granted, JoinRefusal> {
        let chain = chain_of(record)?;
        if self.is_revoked(record, &chain) {
            return Err(JoinRefusal::Revoked);
        }
        let root_json = self.powers.root_files.find(&grant.root_sha256);
        // The token's first: it is the one that the joiner can check.
        let mut roots = self.roots.clone();
        roots
            .sort_by_key(|root| sutler_swarm::enrol::token::sha256(root) != grant.authority_sha256);
        Ok(Granted { chain, roots, root_json: root_json.ok_or(JoinRefusal::NoRoot)? })
    }

    fn is_revoked(&self, record: &Record, chain: &[CertificateDer<'static>]) -> bool {
        let shown = Credentials::of(chain);
        shown.is_none_or(|shown| self.powers.revocations.now().covers(&shown))
            || self.powers.revocations.now().keys.contains(&record.key)
    }
}

/// A believed request for a first certificate.
struct Asks<'a> {
    grant: &'a Grant,
    token: TokenId,
    key: &'a ProvenKey,
    replace: bool,
}

impl Registrar for Members {
    fn join(&self, join: &Join, from: IpAddr, now: UnixTime) -> Result<JoinOutcome, JoinRefusal> {
        let (statement, signature) = (join.statement.clone(), join.signature.clone());
        let presented = Presented { statement, signature, secret: join.secret };
        let (grant, token) =
            presented.verify(&self.powers.token_makers.now()).map_err(|_| JoinRefusal::Token)?;
        let key = ProvenKey::of(&join.csr)
            .map_err(|error| JoinRefusal::Csr { detail: error.to_string() })?;
        let names_our_root = |root: &CertificateDer<'_>| {
            sutler_swarm::enrol::token::sha256(root) == grant.authority_sha256
        };
        if !self.roots.iter().any(names_our_root) {
            return Err(JoinRefusal::Token);
        }
        // Found first: a token that cannot be honoured is not used up by asking.
        if self.powers.root_files.find(&grant.root_sha256).is_none() {
            return Err(JoinRefusal::NoRoot);
        }
        let mut known = self.known();
        let _lock = self.folder.lock()?;
        let record = match self.folder.get(&key.hash())? {
            Some(record) if record.token != Some(token) => return Err(JoinRefusal::Taken),
            Some(record) => record,
            None => {
                let asks = Asks { grant: &grant, token, key: &key, replace: join.replace };
                let record = self.admit(&asks, &mut known, from, now)?;
                let record = self.certified(record, &key, now)?;
                known.add(&record);
                record
            }
        };
        match record.standing {
            Standing::Retired => Err(JoinRefusal::Retired),
            Standing::Held => Ok(JoinOutcome::Held { id: record.name.member().id().to_string() }),
            Standing::Accepted => {
                let record = self.certified(record, &key, now)?;
                self.granted(&record, &grant).map(JoinOutcome::Granted)
            }
            Standing::Member => self.granted(&record, &grant).map(JoinOutcome::Granted),
        }
    }

    fn renew(
        &self,
        shown: &Credentials,
        csr: &[u8],
        now: UnixTime,
    ) -> Result<Vec<CertificateDer<'static>>, JoinRefusal> {
        let refused = |detail: &str| JoinRefusal::Csr { detail: detail.to_owned() };
        let key = ProvenKey::of(csr).map_err(|error| refused(&error.to_string()))?;
        if shown.keys.first() != Some(&key.hash()) {
            return Err(refused("it is about another key than the certificate that was shown"));
        }
        if self.powers.revocations.now().covers(shown) {
            return Err(JoinRefusal::Revoked);
        }
        let mut known = self.known();
        let _lock = self.folder.lock()?;
        let record = match self.folder.get(&key.hash())? {
            Some(record) if record.name != shown.name => return Err(JoinRefusal::Retired),
            Some(record) => record,
            // Issued by hand, or before a backup that control was restored from.
            None => {
                let holder = known.by_name.get(&shown.name);
                let holder = holder.map(|holder| self.folder.get(holder)).transpose();
                let holder = holder?.flatten();
                if holder.is_some_and(|holder| holder.standing != Standing::Retired) {
                    return Err(JoinRefusal::Retired);
                }
                let from = IpAddr::from([0, 0, 0, 0]);
                let name = shown.name.clone();
                Record::new(name, key.hash(), None, Standing::Member, from, now)
            }
        };
        match record.standing {
            Standing::Retired => return Err(JoinRefusal::Retired),
            Standing::Held | Standing::Accepted => return Err(JoinRefusal::NoCertificate),
            Standing::Member => {}
        }
        // Asked twice because the first answer was lost: the same certificate, not another.
        if record.chain.is_some() {
            let chain = chain_of(&record)?;
            let fresh = Credentials::of(&chain).is_some_and(|new| {
                new.begins.as_secs() > shown.begins.as_secs()
                    && now.as_secs() < due(new.begins, new.ends).as_secs()
            });
            if fresh && !self.is_revoked(&record, &chain) {
                return Ok(chain);
            }
        }
        let chain = self.certify(record.name.member(), &key, now)?;
        let renewed = Record { chain: Some(chain), ..record };
        self.folder.put(&renewed)?;
        known.add_name(&renewed);
        chain_of(&renewed)
    }
}

impl Known {
    fn add(&mut self, record: &Record) {
        if let Some(token) = record.token {
            *self.uses.entry(token).or_default() += 1;
        }
        self.add_name(record);
    }

    fn add_name(&mut self, record: &Record) {
        if record.standing != Standing::Retired {
            self.by_name.insert(record.name.clone(), record.key);
        }
    }
}

fn chain_of(record: &Record) -> Result<Vec<CertificateDer<'static>>, JoinRefusal> {
    let pem = record.chain.as_deref().unwrap_or_default();
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    chain.map_err(|error| JoinRefusal::Failed { detail: detail(&error.to_string()) })
}

impl From<OpenError> for JoinRefusal {
    /// The joiner is told what the trouble is, not where: paths are control's own business.
    fn from(error: OpenError) -> Self {
        tracing::error!(error = causes(&error), "the records of members cannot be used");
        let trouble = match error {
            OpenError::Disk { source, .. } => source.to_string(),
            OpenError::Damaged { .. } => "a record is damaged".to_owned(),
        };
        Self::Failed { detail: detail(&trouble) }
    }
}
