//! The whole server, from a checked configuration to its end by a signal.

use std::{
    future::Future,
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
};

use crate::{
    backend::Backend,
    config::{Config, ConfigError},
    http::{self, App, Guard},
    log::Log,
    registry::Registry,
};

/// Threads that read requests and write answers; models have their own processes.
const THREADS: usize = 2;

/// What does not stand in the configuration.
pub struct Options {
    /// Where the configuration says it is.
    pub token: Option<String>,
    /// A file that keeps what models took of memory.
    pub state_file: Option<PathBuf>,
    pub log: Log,
}

/// Serves until SIGINT or SIGTERM. `listening` is told the address.
pub fn serve(
    config: Config,
    backend: Box<dyn Backend>,
    options: Options,
    listening: impl FnOnce(SocketAddr),
) -> Result<(), ConfigError> {
    config.check(options.token.as_deref())?;
    let address = config.listen;
    let failed = |source: io::Error| ConfigError::Listen { address, source };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .map_err(failed)?;
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let budget = config.budget();
    let Options { token, state_file, log } = options;
    let registry = Registry::new(config.models, backend, budget, state_file, log);
    let guard = Guard::new(token.as_deref(), config.hosts, config.cors);
    let app = Arc::new(App::new(registry.clone(), config.limits, guard));
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
        let ended = ended().map_err(failed)?;
        listening(listener.local_addr().map_err(failed)?);
        registry.preload();
        http::run(listener, app, ended).await;
        Ok(())
    })
}

/// When somebody wants this process to end.
#[cfg(unix)]
fn ended() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn ended() -> io::Result<impl Future<Output = ()>> {
    Ok(async {
        // Without it, only the task manager ends this process.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
