"""A lifecycle manager of a managed node."""

import time

from lifecycle_msgs.msg import State, Transition, TransitionEvent
from lifecycle_msgs.srv import ChangeState, GetAvailableTransitions, GetState

from ros_graph import wait_until

CONFIGURE, CLEANUP = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP
ACTIVATE, DEACTIVATE = Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE
UNCONFIGURED, INACTIVE = State.PRIMARY_STATE_UNCONFIGURED, State.PRIMARY_STATE_INACTIVE
ACTIVE, FINALIZED = State.PRIMARY_STATE_ACTIVE, State.PRIMARY_STATE_FINALIZED
SHUTDOWN = {UNCONFIGURED: Transition.TRANSITION_UNCONFIGURED_SHUTDOWN,
            INACTIVE: Transition.TRANSITION_INACTIVE_SHUTDOWN,
            ACTIVE: Transition.TRANSITION_ACTIVE_SHUTDOWN}


class Manager:
    """The service clients of a lifecycle manager."""

    def __init__(self, peer, name):
        self.peer, self.events = peer, []
        self._clients = {kind: peer.node.create_client(kind, f'/{name}/{service}') for kind, service in (
            (ChangeState, 'change_state'), (GetState, 'get_state'),
            (GetAvailableTransitions, 'get_available_transitions'))}
        peer.node.create_subscription(TransitionEvent, f'/{name}/transition_event', self.events.append, 10)
        wait_until(lambda: all(client.service_is_ready() for client in self._clients.values()), 'lifecycle services')
        time.sleep(0.3)   # discovery on the node's side cannot be observed here

    def change(self, transition):
        """Whether the transition succeeded."""
        request = ChangeState.Request(transition=Transition(id=transition))
        return self.peer.call(self._clients[ChangeState], request).success

    def state(self):
        return self.peer.call(self._clients[GetState], GetState.Request()).current_state.id

    def available(self):
        answer = self.peer.call(self._clients[GetAvailableTransitions], GetAvailableTransitions.Request())
        return {entry.transition.label for entry in answer.available_transitions}
