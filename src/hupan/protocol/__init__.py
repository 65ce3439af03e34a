"""What is said on the wire: one table of rows, their messages, and the codecs.

Nothing in this package knows a server, a client, a rule or a database.
"""

from hupan.protocol.message import Message
from hupan.protocol.row import Auth, Certainty, Host, Row, Wire
from hupan.protocol.table import rows
from hupan.protocol.wire import Refused

__all__ = ["Auth", "Certainty", "Host", "Message", "Refused", "Row", "Wire", "rows"]
