//! Against a real clamd. Skipped, with a line that says so, where none is installed.

use std::sync::atomic::{AtomicBool, Ordering};

use gantry_scanners::testkit::{Clamd, ClamdOptions, eicar};

use super::*;

fn start(change: impl FnOnce(&mut ClamdOptions)) -> Option<Clamd> {
    let mut options = ClamdOptions::default();
    change(&mut options);
    Clamd::start(&options).unwrap()
}

/// Both ways to the same clamd.
fn ways(clamd: &Clamd) -> [ClamdAddress; 2] {
    [ClamdAddress::Unix(clamd.socket()), ClamdAddress::Tcp(clamd.address().to_string())]
}

fn unix(clamd: &Clamd) -> ClamdAddress {
    ClamdAddress::Unix(clamd.socket())
}

#[tokio::test]
async fn eicar_is_found_plain_in_base64_and_in_a_zip() {
    let Some(clamd) = start(|_| ()) else { return };
    for address in ways(&clamd) {
        let module = module(address, |_| ());
        let state = module.probe().await;
        assert_eq!(state.not_ready, None);
        assert!(state.engine.starts_with("ClamAV "), "{state:?}");

        for clean in [plain(b"nothing to see"), attached("a.zip", &zipped("a", b"nothing"))] {
            let job = job(clean);
            let finding = module.process(&job).await.unwrap();
            assert_eq!(finding.outcome, Outcome::Clean);
            assert_eq!((&finding.engine, &finding.signatures), (&state.engine, &state.signatures));
            assert_eq!((finding.need.as_str(), finding.module.as_str()), ("virus", "clamav"));
            assert!(job.progress.state().work > 0, "what clamd has taken is progress");
        }
        for infected in [
            plain(&eicar()),
            attached("eicar.com", &eicar()),
            attached("eicar.zip", &zipped("eicar.com", &eicar())),
        ] {
            assert_eq!(outcome(&module, &job_on_disk(&infected)).await, found(Clamd::EICAR));
            assert_eq!(outcome(&module, &job(infected)).await, found(Clamd::EICAR));
        }
        let other = plain(Clamd::MARKER_BYTES);
        assert_eq!(outcome(&module, &job(other)).await, found(Clamd::MARKER));
    }
}

#[tokio::test]
async fn beyond_stream_max_length_is_over_budget() {
    let Some(clamd) = start(|options| options.stream_bytes_max = 1 << 20) else { return };
    // Far more than fits into the socket's buffers, so that clamd closes while we write.
    let large = plain(&vec![b'x'; 16 << 20]);
    for address in ways(&clamd) {
        // Configured as if clamd took it.
        let module = module(address, |_| ());
        for job in [job(large.clone()), job_on_disk(&large)] {
            let outcome = outcome(&module, &job).await;
            assert!(matches!(outcome, Ok(Outcome::OverBudget { .. })), "{outcome:?}");
        }
        assert_eq!(outcome(&module, &job(plain(&eicar()))).await, found(Clamd::EICAR));
    }
}

#[tokio::test]
async fn what_clamd_would_skip_and_call_clean_is_over_budget() {
    let limits = "MaxFileSize 64K\n";
    let Some(clamd) = start(|options| options.extra = limits.to_owned()) else { return };
    let infected = [vec![b'x'; 128 << 10], eicar()].concat();

    let trusting = module(unix(&clamd), |_| ());
    let skipped = outcome(&trusting, &job(infected.clone())).await;
    assert_eq!(skipped, Ok(Outcome::Clean), "if clamd now says so itself, the limit is not needed");

    let told = module(unix(&clamd), |config| config.scan_bytes_max = 64 << 10);
    let outcome = outcome(&told, &job(infected)).await;
    assert!(matches!(outcome, Ok(Outcome::OverBudget { .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_limit_that_clamd_reports_is_over_budget_and_no_virus() {
    let limits = "MaxScanSize 512K\nAlertExceedsMax yes\n";
    let Some(clamd) = start(|options| options.extra = limits.to_owned()) else { return };
    let module = module(unix(&clamd), |_| ());
    let packed = attached("a.zip", &zipped("a", &vec![b'x'; 1 << 20]));
    let outcome = outcome(&module, &job(packed)).await;
    assert!(matches!(outcome, Ok(Outcome::OverBudget { .. })), "{outcome:?}");
}

#[tokio::test]
async fn a_stopped_clamd_is_unavailable_and_works_again_when_it_is_back() {
    let Some(mut clamd) = start(|_| ()) else { return };
    for address in ways(&clamd) {
        let module = module(address, |_| ());
        assert_eq!(outcome(&module, &job(plain(b"x"))).await, Ok(Outcome::Clean));
        clamd.stop().unwrap();
        let error = outcome(&module, &job(plain(b"x"))).await.unwrap_err();
        assert!(matches!(error, ModuleError::Unavailable { .. }), "{error}");
        let state = module.probe().await;
        assert!(state.not_ready.is_some() && state.engine.starts_with("ClamAV "), "{state:?}");
        clamd.resume_service().unwrap();
        assert_eq!(module.probe().await.not_ready, None);
        assert_eq!(outcome(&module, &job(plain(&eicar()))).await, found(Clamd::EICAR));
    }
}

/// The clamd of the tests has no database of ClamAV's own, so its answer to VERSION has no date.
#[tokio::test]
async fn a_clamd_that_tells_no_age_is_not_ready_where_one_is_asked() {
    let Some(clamd) = start(|_| ()) else { return };
    let day = Duration::from_secs(86_400);
    let careful = module(unix(&clamd), |config| config.signatures_age_max = Some(day));
    let reason = careful.probe().await.not_ready.unwrap();
    assert!(reason.contains("how old its signatures are"), "{reason}");
    assert_eq!(module(unix(&clamd), |_| ()).probe().await.not_ready, None);
}

#[tokio::test]
async fn a_hanging_clamd_is_unavailable_within_the_time_limit() {
    let Some(clamd) = start(|_| ()) else { return };
    for address in ways(&clamd) {
        let impatient = module(address.clone(), |config| {
            config.connect_timeout = Duration::from_millis(300);
            config.scan_timeout = Duration::from_millis(600);
        });
        let patient = module(address, |_| ());
        assert_eq!(outcome(&patient, &job(plain(b"x"))).await, Ok(Outcome::Clean));
        // So that it knows the version, and hangs in the scan.
        impatient.probe().await;
        clamd.freeze().unwrap();
        let error = outcome(&impatient, &job(plain(b"x"))).await.unwrap_err();
        assert!(matches!(error, ModuleError::Unavailable { .. }), "{error}");
        assert!(impatient.probe().await.not_ready.is_some());
        clamd.thaw().unwrap();
        assert_eq!(patient.probe().await.not_ready, None);
        assert_eq!(outcome(&patient, &job(plain(&eicar()))).await, found(Clamd::EICAR));
    }
}

#[tokio::test]
async fn an_error_of_clamd_is_neither_clean_nor_a_virus() {
    let Some(clamd) = start(|options| options.file_bytes_max = Some(1 << 20)) else { return };
    let large = [vec![b'x'; 2 << 20], eicar()].concat();
    for address in ways(&clamd) {
        let module = module(address, |_| ());
        let error = outcome(&module, &job(large.clone())).await.unwrap_err();
        let ModuleError::Failed { reason, .. } = &error else { panic!("{error}") };
        assert!(reason.contains("ERROR"), "{error}");
        assert_eq!(outcome(&module, &job(plain(&eicar()))).await, found(Clamd::EICAR));
    }
}

#[tokio::test]
async fn a_connection_closed_without_a_reply_is_a_failure() {
    let Some(clamd) = start(|_| ()) else { return };
    for address in ways(&clamd) {
        let module = module(address, |_| ());
        clamd.break_scanning().unwrap();
        for bytes in [plain(b"x"), plain(&eicar())] {
            let error = outcome(&module, &job(bytes)).await.unwrap_err();
            assert!(matches!(error, ModuleError::Failed { .. }), "{error}");
        }
        clamd.mend_scanning().unwrap();
        assert_eq!(outcome(&module, &job(plain(&eicar()))).await, found(Clamd::EICAR));
    }
}

/// Scans one message over and over, each result checked, until told to stop; then once more, which must succeed.
/// Returns how many scans succeeded.
async fn scan_on(module: &ClamdModule, infected: bool, stop: &AtomicBool) -> usize {
    let (bytes, expected) = if infected {
        (attached("eicar.com", &eicar()), found(Clamd::EICAR))
    } else {
        (attached("a.txt", b"nothing to see"), Ok(Outcome::Clean))
    };
    let job = job(bytes);
    let mut succeeded = 0;
    loop {
        let last = stop.load(Ordering::Relaxed);
        match outcome(module, &job).await {
            Err(error) if last => panic!("{error}"),
            Err(_) => tokio::task::yield_now().await,
            result => {
                assert_eq!(result, expected);
                succeeded += 1;
            }
        }
        if last {
            return succeeded;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_killed_and_started_in_mid_run_no_answer_is_wrong() {
    let Some(mut clamd) = start(|_| ()) else { return };
    let [unix, tcp] = ways(&clamd).map(|address| module(address, |_| ()));
    let stop = AtomicBool::new(false);
    let disturb = async {
        let stop = &stop;
        tokio::task::block_in_place(move || {
            clamd.stop().unwrap();
            clamd.resume_service().unwrap();
            clamd.kill().unwrap();
            clamd.resume_service().unwrap();
            stop.store(true, Ordering::Relaxed);
            clamd
        })
    };
    let scans = async {
        tokio::join!(
            scan_on(&unix, true, &stop),
            scan_on(&unix, false, &stop),
            scan_on(&tcp, true, &stop),
            scan_on(&tcp, false, &stop),
        )
    };
    let (clamd, scans) = tokio::join!(disturb, scans);
    assert!(scans.0 > 0 && scans.1 > 0 && scans.2 > 0 && scans.3 > 0, "{}", clamd.log());
}

#[tokio::test]
async fn while_it_reloads_no_answer_is_wrong() {
    for concurrent in [true, false] {
        let clamd = start(|options| {
            options.concurrent_reload = concurrent;
            // Without concurrency clamd answers nothing until its threads have been idle for so long, 30 s unless set.
            options.extra = "IdleTimeout 1\n".to_owned();
        });
        let Some(clamd) = clamd else { return };
        let module = module(unix(&clamd), |_| ());
        let stop = AtomicBool::new(false);
        let reload = async {
            for _ in 0..3 {
                let tcp = clamav_client::tokio::Tcp { host_address: clamd.address() };
                let answer = clamav_client::tokio::reload(tcp).await.unwrap();
                assert_eq!(answer, clamav_client::RELOADING);
                assert_eq!(outcome(&module, &job(plain(&eicar()))).await, found(Clamd::EICAR));
            }
            stop.store(true, Ordering::Relaxed);
        };
        let ((), infected, clean) =
            tokio::join!(reload, scan_on(&module, true, &stop), scan_on(&module, false, &stop));
        assert!(infected > 0 && clean > 0);
        assert_eq!(module.probe().await.not_ready, None);
    }
}
