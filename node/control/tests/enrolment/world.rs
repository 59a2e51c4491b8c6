//! An organisation, its control's enrolment port, and machines that join.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::UnixTime;
use sutler_control::Members;
use sutler_control::members::{MEMBER_LIFETIME, Powers, Record, RootFolder, TokenMakers};
use sutler_protocol::join::JoinRefusal;
use sutler_swarm::enrol::client::{self, JoinError, Joined};
use sutler_swarm::enrol::device::{Begun, Existing, Joiner};
use sutler_swarm::enrol::token::sha256;
use sutler_swarm::enrol::{
    EnrolLimits, Enrolment, Grant, Granted, JoinRole, Registrar as _, Token, TokenKeys,
};
use sutler_swarm::identity::{
    Authority, Identity, LEAF_LIFETIME, Member, Revocations, TrustedClock, Validity,
};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(super) const DAY: Duration = Duration::from_hours(24);

pub(super) const ROOT_JSON: &[u8] = br#"{"signed": {"_type": "root", "version": 1}}"#;

pub(super) struct World {
    pub(super) folder: TempDir,
    pub(super) authority: Authority,
    pub(super) revocations: Revocations,
    pub(super) makers: TokenMakers,
    control: Identity,
}

/// Control's port, open until it is dropped.
pub(super) struct Port {
    pub(super) address: SocketAddr,
    pub(super) stop: CancellationToken,
    pub(super) task: JoinHandle<()>,
}

impl World {
    pub(super) fn new(organisation: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        let authority = Authority::create(&at("org"), organisation.parse().unwrap()).unwrap();
        let id = "c1".parse().unwrap();
        let control = Member::Control { id };
        authority.issue(control, Validity::from_now(LEAF_LIFETIME), &at("control")).unwrap();
        let below = Validity::from_now(DAY * 365);
        authority.intermediate(&"c1".parse().unwrap(), below, &at("below")).unwrap();
        std::fs::create_dir(at("metadata")).unwrap();
        std::fs::write(at("metadata/1.root.json"), ROOT_JSON).unwrap();
        let control = Identity::load(&at("control")).unwrap();
        let makers = TokenMakers::new(TokenKeys::of_roots(control.roots()));
        Self { authority, revocations: Revocations::default(), makers, control, folder }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Control's memory, as it is after a start.
    pub(super) fn members(&self) -> Members {
        let powers = Powers {
            authority: Authority::open(&self.path("below")).unwrap(),
            token_makers: self.makers.clone(),
            root_files: RootFolder::new(self.path("metadata")),
            revocations: self.revocations.clone(),
            lifetime: MEMBER_LIFETIME,
        };
        Members::open(&self.path("members"), powers).unwrap()
    }

    pub(super) fn records(&self) -> Vec<Record> {
        Members::list(&self.path("members")).unwrap()
    }

    pub(super) fn port(&self) -> Port {
        self.port_with(EnrolLimits::default())
    }

    pub(super) fn port_with(&self, limits: EnrolLimits) -> Port {
        let enrolment = Enrolment::bind(
            (Ipv4Addr::LOCALHOST, 0).into(),
            &self.control,
            self.revocations.clone(),
            TrustedClock::default(),
            limits,
            Arc::new(self.members()),
        )
        .unwrap();
        let address = enrolment.local_address().unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(enrolment.run(stop.clone()));
        Port { address, stop, task }
    }

    pub(super) fn grant(&self) -> Grant {
        let now = UnixTime::now().as_secs();
        Grant {
            organisation: self.authority.organisation().clone(),
            site: "leeds".parse().unwrap(),
            role: JoinRole::Agent,
            name: None,
            uses: 1,
            expires: UnixTime::since_unix_epoch(Duration::from_secs(now + 3_600)),
            networks: Vec::new(),
            hold: false,
            addresses: vec!["control.invalid:7440".to_owned()],
            root_sha256: sha256(ROOT_JSON),
            authority_sha256: sha256(&self.control.roots()[0]),
        }
    }

    pub(super) fn sign(&self, grant: Grant) -> Token {
        Token::make(grant, |statement| self.authority.sign_statement(statement).unwrap()).unwrap()
    }

    pub(super) fn token(&self, change: impl FnOnce(&mut Grant)) -> Token {
        let mut grant = self.grant();
        change(&mut grant);
        self.sign(grant)
    }

    /// Lets the machine whose data is in the folder `data` join, to its end.
    pub(super) async fn join(
        &self,
        port: &Port,
        token: &Token,
        data: &str,
    ) -> Result<Identity, JoinError> {
        let joiner = joiner(&self.path(data), token, Existing::Keep);
        match ask(port.address, token, &joiner, false).await? {
            Joined::Granted(granted) => Ok(joiner.finish(token, &granted).unwrap()),
            Joined::Held { .. } => panic!("held"),
        }
    }
}

/// Asks control's memory without a network, from `from`.
pub(super) fn decide(
    members: &Members,
    token: &Token,
    csr: &[u8],
    from: IpAddr,
) -> Result<Option<Granted>, JoinRefusal> {
    let join = super::raw::join_frame(token, csr);
    members.join(&join, from, UnixTime::now()).map(|outcome| match outcome {
        sutler_swarm::enrol::JoinOutcome::Granted(granted) => Some(granted),
        sutler_swarm::enrol::JoinOutcome::Held { .. } => None,
    })
}

pub(super) fn joiner(data: &Path, token: &Token, existing: Existing) -> Joiner {
    match Joiner::begin(data, &token.id(), existing).unwrap() {
        Begun::Joiner(joiner) => joiner,
        Begun::Member(identity) => panic!("{identity:?} had joined"),
    }
}

pub(super) async fn ask(
    address: SocketAddr,
    token: &Token,
    joiner: &Joiner,
    replace: bool,
) -> Result<Joined, JoinError> {
    client::join(address, token, &joiner.csr().unwrap(), joiner.key_hash(), replace).await
}

pub(super) fn refusal<T>(result: Result<T, JoinError>) -> JoinRefusal {
    match result {
        Err(JoinError::Refused(refusal)) => refusal,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was granted"),
    }
}

pub(super) fn local() -> IpAddr {
    Ipv4Addr::LOCALHOST.into()
}

impl Drop for Port {
    fn drop(&mut self) {
        self.stop.cancel();
        self.task.abort();
    }
}
