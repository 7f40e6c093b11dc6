//! A whole mesh on this machine: one coordinator and a few nodes that joined it.

use std::path::Path;

use tempfile::TempDir;

use crate::{Coordinator, CoordinatorPlan, Node};

/// How a mesh is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    coordinator: CoordinatorPlan,
    nodes: Vec<String>,
    settings: Vec<(String, String, String)>,
}

impl Plan {
    /// A plain coordinator and these nodes; the first one owns the mesh.
    pub fn of(nodes: &[&str]) -> Self {
        let nodes = nodes.iter().map(|&handle| handle.to_owned()).collect();
        Self { coordinator: CoordinatorPlan::plain(), nodes, settings: Vec::new() }
    }

    /// With such a coordinator.
    #[must_use]
    pub fn coordinator(mut self, plan: CoordinatorPlan) -> Self {
        self.coordinator = plan;
        self
    }

    /// With an environment variable at one node.
    #[must_use]
    pub fn setting(mut self, node: &str, variable: &str, value: &str) -> Self {
        self.settings.push((node.to_owned(), variable.to_owned(), value.to_owned()));
        self
    }

    /// Without direct links at this node.
    #[must_use]
    pub fn relay_only(self, node: &str) -> Self {
        self.setting(node, "PEERLOOM_DIRECT", "false")
    }

    /// Makes it: the first node makes the mesh, the others join by invites; all are up, connected
    /// and see each other.
    ///
    /// # Panics
    /// When any of that fails.
    #[track_caller]
    pub fn start(self) -> Mesh {
        let mut mesh = Mesh::empty(self.coordinator);
        for handle in &self.nodes {
            let mut node = Node::new(mesh.dir.path(), handle);
            for (_, variable, value) in self.settings.iter().filter(|(of, _, _)| of == handle) {
                node.set(variable, value);
            }
            mesh.admit(node);
        }
        for node in &mesh.nodes {
            for other in self.nodes.iter().filter(|other| *other != node.handle()) {
                node.await_online(other, true);
            }
        }
        mesh
    }
}

/// A coordinator and its nodes.
#[derive(Debug)]
pub struct Mesh {
    // Nodes end before their coordinator, and both before their files.
    nodes: Vec<Node>,
    /// The coordinator.
    pub coordinator: Coordinator,
    dir: TempDir,
}

impl Mesh {
    /// `laptop`, who owns the mesh, and `build`, up and connected.
    #[track_caller]
    pub fn start() -> Self {
        Plan::of(&["laptop", "build"]).start()
    }

    /// A running coordinator without any mesh.
    #[track_caller]
    pub fn empty(plan: CoordinatorPlan) -> Self {
        let dir = tempfile::Builder::new().prefix("pl").tempdir_in("/tmp").expect("/tmp can be written");
        let mut coordinator = Coordinator::new(dir.path(), plan);
        coordinator.start();
        Self { nodes: Vec::new(), coordinator, dir }
    }

    /// Where all of it is kept.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A node that is in no mesh, with a home beside the others.
    pub fn stranger(&self, handle: &str) -> Node {
        Node::new(self.dir.path(), handle)
    }

    /// Takes a node in: the first makes the mesh, others join by an invite of the first. It is up
    /// and connected afterwards.
    #[track_caller]
    pub fn admit(&mut self, mut node: Node) {
        match self.nodes.first() {
            None => {
                node.init("acme", &self.coordinator.origin());
            }
            Some(first) => {
                node.join(&first.invite(&[])).ok();
            }
        }
        node.up();
        self.nodes.push(node);
    }

    /// Takes in a node that has joined already, and brings it up.
    #[track_caller]
    pub fn admit_joined(&mut self, mut node: Node) {
        node.up();
        self.nodes.push(node);
    }

    /// A node by its handle.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn node(&self, handle: &str) -> &Node {
        self.nodes.iter().find(|node| node.handle() == handle).expect("a node of that name was planned")
    }

    /// A node by its handle, to stop or start it.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn node_mut(&mut self, handle: &str) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.handle() == handle).expect("a node of that name was planned")
    }
}
