"""A cluster of one machine listens on loopback only, in the places, too, where Ray Serve has no setting for it."""

from __future__ import annotations

import ipaddress
from typing import Any

import ray
import ray.serve._private.replica
from ray.util import get_node_ip_address

ANY_ADDRESS = "[::]:"


def keep_replica_on_loopback() -> None:
    """Makes this replica's server for calls between deployments listen on loopback if the node does.

    Serve 2.60 starts it on all addresses, without authentication, after the deployment's constructor ran.
    """
    if not ray.is_initialized() or not ipaddress.ip_address(get_node_ip_address()).is_loopback:
        return
    replica: Any = ray.serve._private.replica
    original = replica.add_port_to_grpc_server

    def add_loopback_port(server: object, address: str) -> int:
        return original(server, address.replace(ANY_ADDRESS, "127.0.0.1:"))

    replica.add_port_to_grpc_server = add_loopback_port
