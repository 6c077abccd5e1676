//! [`Testbed`]: a running control plane, and what tests do with it.

use std::{
    collections::BTreeMap,
    env, fmt, fs,
    path::{Path, PathBuf},
    process, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{Node, ServiceAccount},
};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use parking_lot::Mutex;
use tokio::time::sleep;

use crate::{
    builder::Builder,
    control_plane::component,
    fake,
    kubeconfig::{self, Credential},
    manifests,
    network::{Network, port},
    pki::Pki,
    process::{LogFile, ProcessSpec},
    profile::Profile,
    supervisor::{Exit, Launch, Signal, Supervisor},
};

/// How long a token for a binary under test is good for.
const TOKEN_SECONDS: i64 = 30 * 24 * 3600;
/// How long nodes that are added may take to become ready.
const NODES_LIMIT: Duration = Duration::from_secs(120);

/// A running testbed. Dropping it takes everything down and waits until it is
/// gone; when the thread is panicking, the logs are kept and their directory is
/// printed.
pub struct Testbed {
    pub(crate) supervisor: Supervisor,
    /// The multi-call binary of Kubernetes.
    pub(crate) program: PathBuf,
    pub(crate) network: Network,
    pub(crate) pki: Pki,
    client: Client,
    admin_kubeconfig: PathBuf,
    /// How each process was started, to start it again.
    launches: Mutex<BTreeMap<String, Launch>>,
    /// The next free node index of each profile.
    indices: Mutex<BTreeMap<Profile, usize>>,
    /// Whether kwok renews leases for its nodes.
    node_leases: bool,
    losing: tokio::sync::Mutex<()>,
}

/// A control plane that is up, without nodes: what the builder has made.
pub(crate) struct Parts {
    pub(crate) program: PathBuf,
    pub(crate) network: Network,
    pub(crate) pki: Pki,
    pub(crate) launches: Vec<Launch>,
    pub(crate) client: Client,
    pub(crate) admin_kubeconfig: PathBuf,
    pub(crate) node_leases: bool,
}

impl Testbed {
    /// Describes a testbed.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn new(supervisor: Supervisor, parts: Parts) -> Self {
        let launches = parts.launches.into_iter().map(|launch| (launch.name.clone(), launch)).collect();
        Self {
            supervisor,
            program: parts.program,
            network: parts.network,
            pki: parts.pki,
            client: parts.client,
            admin_kubeconfig: parts.admin_kubeconfig,
            launches: Mutex::new(launches),
            indices: Mutex::default(),
            node_leases: parts.node_leases,
            losing: tokio::sync::Mutex::default(),
        }
    }

    /// A client with all rights.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The kubeconfig of [`Testbed::client`].
    pub fn admin_kubeconfig(&self) -> &Path {
        &self.admin_kubeconfig
    }

    /// `https://ADDRESS:PORT`.
    pub fn apiserver_url(&self) -> String {
        format!("https://{}", self.network.at(port::API_SERVER))
    }

    /// The certificate authority of [`Testbed::apiserver_url`], PEM.
    pub fn ca_pem(&self) -> &str {
        &self.pki.cluster.cert_pem
    }

    /// The testbed's network: the address that its processes listen on.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The certificates of the control plane, to issue more.
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// The testbed's directory, which goes with it.
    pub fn dir(&self) -> &Path {
        &self.supervisor.dir
    }

    // ---- Identities

    /// Writes the kubeconfig of a ServiceAccount, which must exist, with a token
    /// from the TokenRequest API that is good for 30 days.
    pub async fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..TokenRequestSpec::default() }),
            ..TokenRequest::default()
        };
        let issued = accounts
            .create_token_request(name, &PostParams::default(), &request)
            .await
            .with_context(|| format!("token for ServiceAccount {namespace}/{name}"))?;
        let token = issued.status.and_then(|status| status.token).context("the token request has no token")?;
        let path = self.dir().join(format!("{namespace}-{name}.kubeconfig"));
        kubeconfig::write(&path, &self.apiserver_url(), self.ca_pem(), &Credential::Token(&token), namespace)?;
        Ok(path)
    }

    /// Writes the kubeconfig of a user with a client certificate, as
    /// `kubeadm kubeconfig user` makes it: everything inline, for the owner alone.
    pub fn user_kubeconfig(&self, user: &str, group: Option<&str>) -> Result<PathBuf> {
        let identity = self.pki.client(user, group)?;
        let path = self.dir().join(format!("{}.kubeconfig", user.replace(':', "-")));
        kubeconfig::write(&path, &self.apiserver_url(), self.ca_pem(), &Credential::Certificate(&identity), "default")?;
        Ok(path)
    }

    /// A client that is the given ServiceAccount.
    pub async fn client_as(&self, namespace: &str, name: &str) -> Result<Client> {
        kubeconfig::client(&self.service_account_kubeconfig(namespace, name).await?).await
    }

    // ---- Objects

    /// Applies a directory (rendered with kustomize if it has a
    /// `kustomization.yaml`) or a file: server-side, with strict field
    /// validation. Returns the number of objects.
    pub async fn apply_manifests(&self, path: impl AsRef<Path>) -> Result<usize> {
        let yaml = manifests::render(&self.kubectl_argv(), path.as_ref())?;
        self.apply_yaml(&yaml).await
    }

    /// Applies YAML documents: server-side, with strict field validation.
    pub async fn apply_yaml(&self, yaml: &str) -> Result<usize> {
        manifests::apply(&self.client, yaml).await
    }

    /// `kubectl` for this testbed, with all rights.
    pub fn kubectl(&self) -> process::Command {
        let mut command = process::Command::new(&self.program);
        command.arg("kubectl").env("KUBECONFIG", &self.admin_kubeconfig);
        command
    }

    fn kubectl_argv(&self) -> Vec<String> {
        vec![self.program.display().to_string(), "kubectl".to_owned()]
    }

    // ---- Nodes

    /// Adds fake nodes and waits until they are ready; returns their names.
    pub async fn add_nodes(&self, profile: Profile, count: usize) -> Result<Vec<String>> {
        let names = self.create_nodes(profile, count).await?;
        self.await_nodes(&names, NODES_LIMIT).await?;
        Ok(names)
    }

    /// Adds fake nodes and returns without waiting until they are ready.
    pub async fn create_nodes(&self, profile: Profile, count: usize) -> Result<Vec<String>> {
        let first = self.reserve_indices(profile, count);
        fake::create_nodes(&self.client, profile, first, count).await
    }

    /// Deletes a `Node` object. Its pods stay until the pod garbage collector
    /// finds them.
    pub async fn remove_node(&self, name: &str) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        nodes.delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Fake machines are lost, with all their pods: nothing answers for them any
    /// more, and their `Ready` condition is Unknown from now on. kwok is started
    /// again for it, so that for a second no fake pod starts or ends; those on
    /// other nodes still end at their instant, or right after.
    pub async fn lose_nodes(&self, names: &[&str]) -> Result<()> {
        let _one_at_a_time = self.losing.lock().await;
        self.kill(component::KWOK)?;
        for name in names {
            fake::set_kind(&self.client, name, "lost").await?;
            fake::mark_unreachable(&self.client, name).await?;
        }
        self.start_kwok_again().await
    }

    /// [`Testbed::lose_nodes`] for one.
    pub async fn lose_node(&self, name: &str) -> Result<()> {
        self.lose_nodes(&[name]).await
    }

    /// [`Testbed::recover_nodes`] for one.
    pub async fn recover_node(&self, name: &str) -> Result<()> {
        self.recover_nodes(&[name]).await
    }

    /// Lost fake machines are back, and their pods go on.
    pub async fn recover_nodes(&self, names: &[&str]) -> Result<()> {
        for name in names {
            fake::set_kind(&self.client, name, "fake").await?;
        }
        Ok(())
    }

    /// Starts kwok after it has ended or was killed.
    pub async fn start_kwok_again(&self) -> Result<()> {
        if self.node_leases {
            fake::forget_leases(&self.client).await?;
        }
        self.respawn(component::KWOK)?;
        Ok(())
    }

    /// Waits until nodes are ready and have no taint of the node-lifecycle
    /// controller.
    pub async fn await_nodes<S: AsRef<str>>(&self, names: &[S], limit: Duration) -> Result<()> {
        let names = names.iter().map(|name| name.as_ref().to_owned()).collect();
        fake::await_ready(&self.client, names, limit).await
    }

    /// [`Testbed::await_nodes`] for one.
    pub async fn await_node(&self, name: &str, limit: Duration) -> Result<()> {
        self.await_nodes(&[name], limit).await
    }

    pub(crate) fn reserve_indices(&self, profile: Profile, count: usize) -> usize {
        let mut indices = self.indices.lock();
        let next = indices.entry(profile).or_default();
        let first = *next;
        *next += count;
        first
    }

    // ---- Processes

    /// Starts a process inside the testbed's network. It is stopped before the
    /// control plane, and both of its outputs go to one log. Returns its pid.
    pub fn spawn(&self, spec: ProcessSpec) -> Result<u32> {
        self.launch(spec.into_launch(&self.network))
    }

    pub(crate) fn launch(&self, launch: Launch) -> Result<u32> {
        let pid = self.supervisor.launch(&launch)?;
        self.launches.lock().insert(launch.name.clone(), launch);
        Ok(pid)
    }

    /// Starts a process that has ended again, as it was first started.
    pub fn respawn(&self, name: &str) -> Result<u32> {
        let launch = self.launches.lock().get(name).cloned();
        let launch = launch.with_context(|| format!("no process was ever called {name}"))?;
        self.supervisor.launch(&launch)
    }

    /// Stops a process where it stands (SIGSTOP).
    pub fn pause(&self, name: &str) -> Result<()> {
        self.supervisor.signal(name, Signal::Stop)
    }

    /// Lets a paused process go on (SIGCONT).
    pub fn resume(&self, name: &str) -> Result<()> {
        self.supervisor.signal(name, Signal::Continue)
    }

    /// Kills a process (SIGKILL); returns when it is gone.
    pub fn kill(&self, name: &str) -> Result<()> {
        self.supervisor.signal(name, Signal::Kill)
    }

    /// Asks a process to end (SIGTERM); returns at once.
    pub fn terminate(&self, name: &str) -> Result<()> {
        self.supervisor.signal(name, Signal::Term)
    }

    /// How the processes of this name have ended, oldest first.
    pub fn exits(&self, name: &str) -> Vec<Exit> {
        self.supervisor.exits(name)
    }

    /// Kills the API server, starts it again and waits until it is ready.
    pub async fn restart_apiserver(&self) -> Result<()> {
        self.kill(component::API_SERVER)?;
        self.respawn(component::API_SERVER)?;
        self.await_apiserver(Duration::from_secs(60)).await
    }

    /// Waits until the API server answers `/readyz`.
    pub async fn await_apiserver(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            match readyz(&self.client).await {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() >= deadline => return Err(error).context("the API server is not ready"),
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// The log of a process.
    pub fn logs(&self, name: &str) -> LogFile {
        LogFile::new(self.supervisor.log_file(name))
    }

    // ---- The end

    /// Has the logs survive the testbed; returns where they will be.
    pub fn keep_logs(&self) -> PathBuf {
        keep_logs_of(&self.supervisor)
    }

    /// Runs a command in the teardown, after all processes have ended.
    pub fn on_teardown(&self, argv: &[String]) -> Result<()> {
        self.supervisor.on_teardown(argv)
    }

    /// Takes everything down and says what went wrong with that. Dropping does
    /// the same but can only print it.
    pub fn stop(self) -> Result<()> {
        self.supervisor.stop()
    }

    /// Leaves everything running; returns the supervisor's pid. SIGTERM to it
    /// ends the testbed.
    pub fn detach(self) -> Result<u32> {
        self.supervisor.detach()?;
        Ok(self.supervisor.pid)
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        if thread::panicking() {
            let dir = self.keep_logs();
            eprintln!("testbed: the logs are in {}", dir.display());
        }
    }
}

impl fmt::Debug for Testbed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Testbed")
            .field("dir", &self.supervisor.dir)
            .field("apiserver", &self.apiserver_url())
            .finish_non_exhaustive()
    }
}

/// Asks the API server whether it is ready.
pub(crate) async fn readyz(client: &Client) -> Result<()> {
    let request = http::Request::get("/readyz").body(Vec::new())?;
    client.request_text(request).await?;
    Ok(())
}

/// Has the logs copied, in the teardown, to
/// `${FLOWFORGE_TESTBED_LOGS:-TMP/flowforge-testbed-logs}/TEST-PID-SLOT`.
pub(crate) fn keep_logs_of(supervisor: &Supervisor) -> PathBuf {
    let parent = env::var_os("FLOWFORGE_TESTBED_LOGS")
        .map_or_else(|| env::temp_dir().join("flowforge-testbed-logs"), PathBuf::from);
    let test = thread::current().name().unwrap_or("testbed").replace("::", "-");
    let dir = parent.join(format!("{test}-{}-{}", process::id(), supervisor.slot));
    let kept = fs::create_dir_all(&dir).map_err(anyhow::Error::from).and_then(|()| supervisor.keep_logs(&dir));
    if let Err(error) = kept {
        eprintln!("testbed: cannot keep the logs: {error:#}");
    }
    dir
}
