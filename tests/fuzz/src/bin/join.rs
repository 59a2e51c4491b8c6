//! What strangers may send to the enrolment port: frames, and the signing requests in them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sutler_protocol::frame::{self, LENGTH_BYTES};
use sutler_protocol::join::{JoinAnswer, JoinRequest};
use sutler_swarm::enrol::TokenKeys;
use sutler_swarm::enrol::csr::ProvenKey;
use sutler_swarm::enrol::token::Presented;

fuzz_target!(|bytes: &[u8]| {
    // A signing request alone, so that its inside is reached too.
    csr(bytes);
    if let Ok(answer) = frame::decode::<JoinAnswer>(bytes) {
        let written = frame::encode(&answer);
        assert_eq!(frame::decode(&written[LENGTH_BYTES..]), Ok(answer));
    }
    let Ok(request) = frame::decode::<JoinRequest>(bytes) else { return };
    match &request {
        JoinRequest::Join(join) => {
            let (statement, signature) = (join.statement.clone(), join.signature.clone());
            let presented = Presented { statement, signature, secret: join.secret };
            assert!(presented.verify(&TokenKeys::default()).is_err());
            csr(&join.csr);
        }
        JoinRequest::Renew { csr: asked } => csr(asked),
    }
    let written = frame::encode(&request);
    assert_eq!(frame::decode(&written[LENGTH_BYTES..]), Ok(request));
});

fn csr(bytes: &[u8]) {
    if let Ok(proven) = ProvenKey::of(bytes) {
        // The same request proves the same key.
        assert_eq!(ProvenKey::of(bytes).map(|again| again.hash()), Ok(proven.hash()));
    }
}
