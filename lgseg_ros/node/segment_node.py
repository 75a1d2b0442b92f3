"""The managed ROS node: parameters and transitions around words, cameras, engine and worker."""

import time
from dataclasses import fields, replace
from functools import partial

from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.parameter import Parameter

from ..engines.factory import close_engine, create_engine
from ..engines.self_test import SelfTest
from ..engines.weights import WeightsError, load_weights
from ..vocabulary.classes import VocabularyError
from .bond import Bond
from .camera import Camera
from .diagnostics import Diagnostics
from .inputs import Inputs
from .memory import keep_trimmed
from .settings import Settings, camera_names, check, declare
from .timers import create_steady_timer
from .words import PARAMETERS, Words, refuse
from .worker import Worker

NAMES = {entry.name for entry in fields(Settings)}
WATCH_S = 0.25   # how often a lazy node looks whether somebody listens


class SegmentNode(LifecycleNode):
    """Segments camera pictures by words; see README.md for topics, services and parameters."""

    def __init__(self, name='lgseg', **options):
        """Raises ValueError for a parameter value that is not allowed."""
        super().__init__(name, **options)
        self.settings = declare(self)
        self.words = Words(self, self._mirror_in_parameters)
        self.cameras = []
        self._engine = self._worker = self._bond = None
        self._strays = []           # workers that could not be ended, of engines that are gone otherwise
        self._inputs = []
        self._watch = None
        self._syncing = False
        self._active = self._finalized = False
        self.last_error = ''
        self.engine_choice = None   # what was asked for and what runs, once configured
        self._diagnostics = Diagnostics(self)
        keep_trimmed(self)
        self._survive_bad_transitions()
        self.add_on_set_parameters_callback(self._check_parameters)
        if hasattr(self, 'add_post_set_parameters_callback'):
            self.add_post_set_parameters_callback(self._parameters_were_set)

    def start(self):
        """Configure and activate, as autostart does.  Returns whether both succeeded."""
        steps = self.trigger_configure, self.trigger_activate
        return all(step() == TransitionCallbackReturn.SUCCESS for step in steps)

    def _survive_bad_transitions(self):
        """Refuse a transition that the present state does not allow: rclpy raises, which would end the process."""
        for service in self.services:
            if service.srv_type is ChangeState:
                service.callback = partial(self._change_state, service.callback)

    def _change_state(self, change, request, response):
        try:
            return change(request, response)
        except RuntimeError as error:   # rclpy's RCLError; what goes wrong within a transition never gets here
            self.get_logger().error(f'transition {request.transition.id} refused while {self.state_label()}: {error}')
            response.success = False
            return response

    # --- transitions: an exception in one is swallowed by rcl, so each says what failed and returns FAILURE

    def on_configure(self, state):
        """Load weights, vocabulary and engine, warm up, offer topics and services."""
        try:
            began = time.monotonic()
            self._load()
            self._offer()
        except (WeightsError, VocabularyError) as error:
            return self._fail(str(error))
        except Exception as error:  # anything else must be said too, or nobody would ever see it
            return self._fail(f'cannot configure: {type(error).__name__}: {error}')
        self.get_logger().info(f'{self._engine.summary()}; {len(self.words.vocabulary.current.names)} classes; '
                               f'ready in {time.monotonic() - began:.2f} s')
        self.last_error = ''
        return TransitionCallbackReturn.SUCCESS

    def _load(self):
        weights = load_weights(self.settings.weights)
        self.words.load(weights, self.settings)
        self._engine = create_engine(self.settings, weights, self._note_engine, self.words.vocabulary.current)

    def _note_engine(self, choice):
        self.engine_choice = choice
        if choice.self_test_failures:   # whatever runs instead: this machine gives wrong masks with that one
            self.get_logger().error(f'engine: {choice}')
        elif choice.fell_back:
            self.get_logger().warning(f'engine: {choice}')
        else:
            self.get_logger().info(f'engine: {choice}')

    def _offer(self):
        for name in camera_names(self.settings):
            self.cameras.append(Camera(self, name))
            self._diagnostics.watch(self.cameras[-1])
        self.words.offer()

    def _fail(self, reason):
        self.last_error = reason
        self.get_logger().fatal(reason)
        self._stop_segmenting()
        self._release()
        return TransitionCallbackReturn.FAILURE

    def on_activate(self, state):
        """Subscribe to the cameras and begin to segment."""
        if self._worker and not self._worker.stop():   # of before: two threads would share the engine's buffers
            return self._cannot_activate('the engine has not finished its frame from before the deactivation, for '
                                         f'{self._worker.busy_seconds():.0f} s; activate again once it has')
        try:
            self._begin_segmenting()
        except Exception as error:
            self._stop_segmenting()
            return self._cannot_activate(f'{type(error).__name__}: {error}')
        self.last_error = ''
        return super().on_activate(state)

    def _cannot_activate(self, reason):
        self.last_error = f'cannot activate: {reason}'
        self.get_logger().fatal(self.last_error)
        return TransitionCallbackReturn.FAILURE

    def _begin_segmenting(self):
        self._worker = Worker(self._engine, self.words.vocabulary, lambda: self.settings, self.get_logger())
        self._inputs = [Inputs(self, camera, self.settings, self._worker.offer) for camera in self.cameras]
        if self.settings.lazy_subscription:
            self._watch = create_steady_timer(self, WATCH_S, self._follow_listeners)
        else:
            for inputs in self._inputs:
                inputs.subscribe()
        topics = ', '.join(inputs.topic for inputs in self._inputs)
        if self.settings.bond_heartbeat_period:
            self._bond = Bond(self, self.settings.bond_heartbeat_period)
        self._active = True
        self.get_logger().info(f'active; pictures from {topics}')

    def _follow_listeners(self):
        for camera, inputs in zip(self.cameras, self._inputs):
            if camera.is_watched() and not inputs.subscribed:
                inputs.subscribe()
            elif inputs.subscribed and not camera.is_watched():
                inputs.unsubscribe()

    def on_deactivate(self, state):
        """Stop segmenting and leave the camera topics; engine and vocabulary stay loaded."""
        self._stop_segmenting()
        return super().on_deactivate(state)

    def on_cleanup(self, state):
        """Drop engine, vocabulary, topics and services; configure can follow with other weights' content."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state):
        """Stop from any state."""
        self._stop_segmenting()
        self._release()
        self._finalized = True
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state):
        """Back to unconfigured, so that a manager can try again."""
        self.get_logger().error('a transition failed; back to unconfigured')
        self._stop_segmenting()
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def close(self):
        """End the worker, then the node; for the end of the process."""
        self._stop_segmenting()
        self.words.close()
        self.destroy_node()

    def engine_summary(self):
        """The engine in one line, or '' while none is loaded."""
        return self._engine.summary() if self._engine else ''

    def engine_self_test(self) -> SelfTest | None:
        """The self-test of the engine in use, None where there is none."""
        return getattr(self._engine, 'self_test', None)

    def engine_failure(self) -> str:
        """Why the engine can segment no more, as when each of them failed its self-test; '' while it can."""
        return getattr(self._engine, 'failure', '')

    def state_label(self):
        """Lifecycle state in a word."""
        if self._finalized:
            return 'finalized'
        return 'active' if self._active else 'inactive' if self._engine else 'unconfigured'

    def inputs_of(self, camera):
        """The `Inputs` of a camera, or None while the node is not active."""
        return next((inputs for inputs in self._inputs if inputs.camera is camera), None)

    def busy_seconds(self):
        """For how long the engine has worked on the frames in hand; 0 between frames."""
        return self._worker.busy_seconds() if self._worker else 0.0

    def engine_runs(self):
        """Whether a thread still works on a frame, also after `close` or a transition has waited for it in vain."""
        return any(worker.runs() for worker in (*self._strays, self._worker) if worker)

    def bond_state(self):
        """none, or waiting, formed, broken."""
        return self._bond.state if self._bond else 'none'

    def _stop_segmenting(self):
        self._active = False
        if self._bond:
            self._bond.close()
            self._bond = None
        if self._watch:
            self.destroy_timer(self._watch)
            self._watch = None
        for inputs in self._inputs:
            inputs.unsubscribe()
        self._inputs = []
        if self._worker and self._worker.stop():
            self._worker = None
        elif self._worker:   # kept: whoever starts or closes the engine has to know
            self.get_logger().warning('the engine did not finish its frame in time')

    def _release(self):
        for camera in self.cameras:
            self._diagnostics.forget(camera)
            camera.destroy(self)
        worker, engine = self._worker, self._engine
        self.cameras, self._engine, self._worker = [], None, None
        self.words.release()
        if worker and worker.runs():   # it uses the engine's memory, which then goes with the process
            self._strays.append(worker)
            return
        try:
            close_engine(engine)
        except Exception as error:   # a GPU that failed for good, say: to clean up is then the way out
            self.get_logger().error(f'the engine did not close: {type(error).__name__}: {error}')

    # --- parameters: checked without side effects first, applied after all of a request passed

    def _proposed(self, parameters):
        changes = {p.name: p.value for p in parameters if p.name in NAMES}
        another_preset = changes.get('preset', self.settings.preset) != self.settings.preset
        if another_preset and 'vocabulary' not in changes and not self._syncing:
            changes['vocabulary'] = ['']   # asking for a preset means its classes
        return replace(self.settings, **changes)

    def _check_parameters(self, parameters):
        try:
            proposed = self._proposed(parameters)
            check(proposed)
            if self._words_change(proposed):
                self.words.check(proposed)
            if not hasattr(self, 'add_post_set_parameters_callback'):   # Humble
                self._apply_parameters(parameters)
        except Exception as error:   # of whatever kind: rclpy would end the node with it
            return SetParametersResult(successful=False, reason=refuse(self.get_logger(), 'parameters', error))
        return SetParametersResult(successful=True)

    def _parameters_were_set(self, parameters):
        try:
            self._apply_parameters(parameters)
        except Exception as error:   # it passed the check just now: memory that ran out, say
            refuse(self.get_logger(), 'parameters', error)
            self._set_silently({p.name: getattr(self.settings, p.name) for p in parameters if p.name in NAMES})

    def _apply_parameters(self, parameters):
        """Make them the settings, and the words in force.  Raises what embedding words may raise, changing nothing."""
        proposed = self._proposed(parameters)
        changed = self._words_change(proposed)
        vocabulary = self.words.replace(proposed) if changed and self.words.vocabulary is not None else None
        self.settings = proposed
        if vocabulary:
            self.get_logger().info(str(vocabulary))
        if changed:
            self._mirror_in_parameters(list(proposed.vocabulary), proposed.preset,
                                       vocabulary.threshold if vocabulary else proposed.threshold)

    def _words_change(self, proposed):
        return not self._syncing and any(getattr(proposed, name) != getattr(self.settings, name) for name in PARAMETERS)

    def _mirror_in_parameters(self, classes, preset, threshold):
        """Let `ros2 param get` tell the truth after a change that came another way."""
        self._set_silently({'vocabulary': classes or [''], 'preset': preset, 'threshold': threshold})

    def _set_silently(self, values):
        """Set parameters to what is in force already."""
        self._syncing = True
        try:
            self.set_parameters([Parameter(name, value=value) for name, value in values.items()])
        finally:
            self._syncing = False
