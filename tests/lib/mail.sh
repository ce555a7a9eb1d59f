# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# tests/lib/mail.sh - a private Dovecot and a private Postfix on any mail root. Source it (bash), as root.
#
#   mail_start DIR MAILROOT USER...            both; or one by one:
#   mail_start_dovecot DIR MAILROOT USER...    IMAP, POP3, LMTP; dovecot-lda and doveadm with -c $MAIL_DOVECOT_CONF
#   mail_start_postfix DIR MAILROOT USER...    SMTP; needs the Dovecot of the same DIR for the LMTP domain
#   mail_stop DIR                              ends what runs in DIR; nothing else
#
# USER is NAME@DOMAIN[:[UID][:FIELD]]: a user of Dovecot may have a uid of its own, and an extra field of its passwd-file.
#
# DIR takes configuration, sockets, queue and logs; nothing is written elsewhere but in MAILROOT. With a DIR
# each, several run side by side. $DIR/env holds what a client needs:
#
#   MAIL_IMAP_PORT MAIL_POP3_PORT MAIL_LMTP_PORT MAIL_SMTP_PORT MAIL_PASSWORD MAIL_DOVECOT_CONF
#   MAIL_DOVECOT_ERRORS (Dovecot's errors and warnings: an empty file while all is well)
#   MAIL_POSTFIX_CONF MAIL_POSTFIX_LOG
#
# Several hosts: the servers run on one of the name MAIL_HOSTNAME, if that is set. MAIL_DOVECOT_EXTRA: more settings.
#
# Who delivers a domain, and where:
#   virt.test   Postfix virtual(8)      MAILROOT/virt.test/USER/Maildir/
#   lmtp.test   Postfix, Dovecot LMTP   MAILROOT/lmtp.test/USER/Maildir/
#   local.test  Postfix local(8)        MAILROOT/local/USER/; USER is a system user (games)
# The files of the first two belong to the numbers 5000:5000, which need no passwd entry, or to UID:5000.

MAIL_VMAIL=5000
# A system user of every Debian, who may own a mailbox: never root.
MAIL_LOCAL_USER=games

_mail_die() {
	echo "mail.sh: $*" >&2
	return 1
}

# Prints $1 different ports of 127.0.0.1 that are free now.
_mail_free_ports() {
	/usr/bin/python3 - "$1" <<-'PY'
		import random, socket, sys
		held = []
		while len(held) < int(sys.argv[1]):
		    s = socket.socket()
		    try:
		        s.bind(("127.0.0.1", random.randrange(10000, 32000)))
		    except OSError:
		        continue
		    held.append(s)
		print(*(s.getsockname()[1] for s in held))
	PY
}

# Waits until something listens on each of the ports.
_mail_wait_ports() {
	local port i
	for port in "$@"; do
		for ((i = 0; i < 200; i++)); do
			(: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null && continue 2
			sleep 0.05
		done
		return 1
	done
}

# Runs a command on a host of the name $MAIL_HOSTNAME, as far as it can tell: names of messages and of lock holders have it.
_mail_on_host() {
	if [ -z "${MAIL_HOSTNAME-}" ]; then
		"$@"
	else
		# shellcheck disable=SC2016 # for that shell
		unshare --uts sh -c 'hostname "$0" && exec "$@"' "$MAIL_HOSTNAME" "$@"
	fi
}

# _mail_setenv DIR NAME VALUE...
_mail_setenv() {
	local file=$1/env
	shift
	while [ $# -ge 2 ]; do
		printf '%s=%q\n' "$1" "$2" >>"$file"
		shift 2
	done
}

# Makes DIR and the directories of MAILROOT that the users cannot make themselves.
_mail_prepare() {
	local dir=$1 root=$2 domain
	mkdir -p "$dir" || return
	# Dovecot's login processes and Postfix's reach their files through it.
	chmod 755 "$dir" || return
	for domain in virt.test lmtp.test; do
		if [ ! -d "$root/$domain" ]; then
			mkdir "$root/$domain" && chown $MAIL_VMAIL:$MAIL_VMAIL "$root/$domain" &&
				chmod 775 "$root/$domain" || return
		fi
	done
	if [ ! -d "$root/local" ]; then
		mkdir "$root/local" && chmod 1777 "$root/local" || return
	fi
}

_mail_dovecot_conf() {
	local dir=$1 imap=$2 pop3=$3 lmtp=$4
	cat <<-CONF
		base_dir = $dir/dovecot/run
		state_dir = $dir/dovecot/state
		instance_name = $dir
		log_path = $dir/dovecot/errors.log
		info_log_path = $dir/dovecot/info.log
		protocols = imap pop3 lmtp
		listen = 127.0.0.1
		ssl = no
		disable_plaintext_auth = no
		auth_mechanisms = plain login
		first_valid_uid = 1
		mmap_disable = yes
		mail_privileged_group =
		postmaster_address = postmaster@virt.test
		hostname = ${MAIL_HOSTNAME:-mail.test}
		login_trusted_networks =
		mail_max_userip_connections = 1000
		namespace inbox {
		  inbox = yes
		  separator = /
		}
		passdb {
		  driver = passwd-file
		  args = username_format=%u $dir/dovecot/users
		}
		userdb {
		  driver = passwd-file
		  args = username_format=%u $dir/dovecot/users
		}
		service imap-login {
		  inet_listener imap {
		    port = $imap
		  }
		  inet_listener imaps {
		    port = 0
		  }
		}
		service pop3-login {
		  inet_listener pop3 {
		    port = $pop3
		  }
		  inet_listener pop3s {
		    port = 0
		  }
		}
		service lmtp {
		  inet_listener lmtp {
		    address = 127.0.0.1
		    port = $lmtp
		  }
		}
		# For who has imap_hibernate_timeout set, under whatever uid.
		service imap {
		  unix_listener imap-master {
		    user = \$default_internal_user
		  }
		}
		service imap-hibernate {
		  unix_listener imap-hibernate {
		    mode = 0666
		  }
		}
		service stats {
		  unix_listener stats-writer {
		    mode = 0666
		  }
		}
		protocol lda {
		  mail_fsync = optimized
		}
		${MAIL_DOVECOT_EXTRA-}
	CONF
}

# A passwd-file for Dovecot: name, password, uid, gid, (gecos), home, (shell), extra fields.
_mail_dovecot_users() {
	local root=$1 user uid field
	shift
	printf '%s:{PLAIN}secret:%s:%s::%s::userdb_mail=maildir:%s\n' $MAIL_LOCAL_USER \
		"$(id -u $MAIL_LOCAL_USER)" "$(id -g $MAIL_LOCAL_USER)" "$root/local/$MAIL_LOCAL_USER" "~"
	for user in "$@"; do
		IFS=: read -r user uid field <<<"$user"
		# shellcheck disable=SC2088 # Dovecot expands it
		printf '%s:{PLAIN}secret:%s:%s::%s::userdb_mail=maildir:%s%s\n' "$user" "${uid:-$MAIL_VMAIL}" $MAIL_VMAIL \
			"$root/${user#*@}/${user%@*}" '~/Maildir' "${field:+ $field}"
	done
}

mail_start_dovecot() {
	local dir root ports try
	dir=$(realpath -m -- "$1") && root=$(realpath -- "$2") || return
	shift 2
	_mail_prepare "$dir" "$root" || return
	mkdir -p "$dir/dovecot/run" "$dir/dovecot/state" || return
	_mail_dovecot_users "$root" "$@" >"$dir/dovecot/users"
	# A port can be taken between choosing and binding.
	for ((try = 0; try < 5; try++)); do
		ports=$(_mail_free_ports 3) || return
		# shellcheck disable=SC2086 # three words
		set -- $ports
		_mail_dovecot_conf "$dir" "$1" "$2" "$3" >"$dir/dovecot/dovecot.conf"
		: >"$dir/dovecot/errors.log"
		: >"$dir/dovecot/info.log"
		if _mail_on_host dovecot -c "$dir/dovecot/dovecot.conf" </dev/null >"$dir/dovecot/start.out" 2>&1 &&
			_mail_wait_ports "$@"; then
			_mail_setenv "$dir" MAIL_IMAP_PORT "$1" MAIL_POP3_PORT "$2" MAIL_LMTP_PORT "$3" \
				MAIL_PASSWORD secret MAIL_LOCAL_USER $MAIL_LOCAL_USER MAIL_ROOT "$root" \
				MAIL_DOVECOT_CONF "$dir/dovecot/dovecot.conf" \
				MAIL_DOVECOT_ERRORS "$dir/dovecot/errors.log"
			return 0
		fi
		mail_stop_dovecot "$dir"
	done
	cat "$dir/dovecot/start.out" "$dir/dovecot/errors.log" >&2
	_mail_die "dovecot does not start"
}

_mail_postfix_main() {
	local dir=$1 root=$2 lmtp=$3
	cat <<-CONF
		compatibility_level = 3.7
		queue_directory = $dir/postfix/spool
		data_directory = $dir/postfix/data
		command_directory = /usr/sbin
		daemon_directory = /usr/lib/postfix/sbin
		meta_directory = /etc/postfix
		mail_owner = postfix
		setgid_group = postdrop
		maillog_file = $dir/postfix/postfix.log
		maillog_file_prefixes = $dir/postfix
		inet_interfaces = 127.0.0.1
		inet_protocols = ipv4
		myhostname = ${MAIL_HOSTNAME:-mail.test}
		mydomain = test
		mynetworks = 127.0.0.0/8
		biff = no
		alias_maps =
		alias_database =
		disable_dns_lookups = yes
		smtpd_peername_lookup = no
		smtpd_tls_security_level = none
		smtp_tls_security_level = none
		smtpd_recipient_restrictions = permit_mynetworks, reject
		message_size_limit = 104857600
		mailbox_size_limit = 0
		virtual_mailbox_limit = 0
		# What was sent is what shall lie in the mailbox.
		local_header_rewrite_clients =
		message_drop_headers =
		lmtp_line_length_limit = 0
		# Nothing leaves this machine.
		default_transport = error:no mail to the outside
		relay_transport = error:no mail to the outside
		mydestination = local.test
		mail_spool_directory = $root/local/
		virtual_mailbox_domains = virt.test, lmtp.test
		virtual_mailbox_base = $root/virt.test
		virtual_mailbox_maps = texthash:$dir/postfix/etc/mailboxes
		virtual_uid_maps = static:$MAIL_VMAIL
		virtual_gid_maps = static:$MAIL_VMAIL
		virtual_transport = virtual
		transport_maps = inline:{ {lmtp.test = lmtp:inet:127.0.0.1:$lmtp} }
	CONF
}

_mail_postfix_master() {
	cat <<-CONF
		127.0.0.1:$1 inet n - n - - smtpd
		pickup    unix  n  -  n  60    1  pickup
		cleanup   unix  n  -  n  -     0  cleanup
		qmgr      unix  n  -  n  300   1  qmgr
		rewrite   unix  -  -  n  -     -  trivial-rewrite
		bounce    unix  -  -  n  -     0  bounce
		defer     unix  -  -  n  -     0  bounce
		trace     unix  -  -  n  -     0  bounce
		verify    unix  -  -  n  -     1  verify
		flush     unix  n  -  n  1000? 0  flush
		proxymap  unix  -  -  n  -     -  proxymap
		proxywrite unix -  -  n  -     1  proxymap
		showq     unix  n  -  n  -     -  showq
		error     unix  -  -  n  -     -  error
		retry     unix  -  -  n  -     -  error
		discard   unix  -  -  n  -     -  discard
		local     unix  -  n  n  -     -  local
		virtual   unix  -  n  n  -     -  virtual -o soft_bounce=yes
		lmtp      unix  -  -  n  -     -  lmtp
		anvil     unix  -  -  n  -     1  anvil
		scache    unix  -  -  n  -     1  scache
		postlog   unix-dgram n - n -   1  postlogd
	CONF
}

mail_start_postfix() {
	local dir root port user try
	dir=$(realpath -m -- "$1") && root=$(realpath -- "$2") || return
	shift 2
	_mail_prepare "$dir" "$root" || return
	mkdir -p "$dir/postfix/etc" "$dir/postfix/spool" "$dir/postfix/data" || return
	chown postfix "$dir/postfix/data" || return
	# shellcheck disable=SC1091 # written by mail_start_dovecot
	. "$dir/env" || return
	for ((try = 0; try < 5; try++)); do
		port=$(_mail_free_ports 1) || return
		_mail_postfix_main "$dir" "$root" "$MAIL_LMTP_PORT" >"$dir/postfix/etc/main.cf"
		_mail_postfix_master "$port" >"$dir/postfix/etc/master.cf"
		for user in "$@"; do
			printf '%s %s\n' "${user%%:*}" "${user%@*}/Maildir/"
		done >"$dir/postfix/etc/mailboxes"
		: >"$dir/postfix/postfix.log"
		if _mail_on_host postfix -c "$dir/postfix/etc" start </dev/null >"$dir/postfix/start.out" 2>&1 &&
			_mail_wait_ports "$port"; then
			_mail_setenv "$dir" MAIL_SMTP_PORT "$port" MAIL_POSTFIX_CONF "$dir/postfix/etc" \
				MAIL_POSTFIX_LOG "$dir/postfix/postfix.log"
			return 0
		fi
		mail_stop_postfix "$dir"
	done
	cat "$dir/postfix/start.out" "$dir/postfix/postfix.log" >&2
	_mail_die "postfix does not start"
}

mail_start() {
	mail_start_dovecot "$@" && mail_start_postfix "$@"
}

# When process $1 was started, in ticks since boot; empty when it is gone or a zombie.
_mail_started() {
	awk '{ sub(/.*\) /, ""); if ($1 != "Z") print $20 }' "/proc/$1/stat" 2>/dev/null
}

# _mail_end PIDFILE WORD: ends the master process of that file and waits for it and all its children,
# which may have files open in the mail root. Pids are reused: its command line or environment must show WORD.
_mail_end() {
	local master pid pids i started=()
	[ -e "$1" ] || return 0
	master=$(tr -d ' \n' <"$1") && [ -n "$master" ] || return 0
	grep -qazF -- "$2" "/proc/$master/cmdline" "/proc/$master/environ" 2>/dev/null || return 0
	pids="$master $(pgrep -P "$master" | tr '\n' ' ')"
	for pid in $pids; do
		started[pid]=$(_mail_started "$pid")
	done
	kill -TERM "$master" 2>/dev/null
	for ((i = 0; i < 300; i++)); do
		for pid in $pids; do
			if [ -n "${started[pid]}" ] && [ "$(_mail_started "$pid")" = "${started[pid]}" ]; then
				sleep 0.05
				continue 2
			fi
		done
		return 0
	done
	for pid in $pids; do
		[ -z "${started[pid]}" ] || [ "$(_mail_started "$pid")" != "${started[pid]}" ] || kill -KILL "$pid"
	done
	_mail_die "$1: did not end in 15 s and was killed"
}

mail_stop_dovecot() {
	_mail_end "$1/dovecot/run/master.pid" "$1/dovecot/dovecot.conf"
}

mail_stop_postfix() {
	local i pids
	_mail_end "$1/postfix/spool/pid/master.pid" "$1/postfix/etc" || return
	# One that was about to start when its caller was killed has no such file yet. By its environment or, in the
	# beginning, by its argument.
	for ((i = 0; i < 100; i++)); do
		pids=$({ grep -lzxF -e "MAIL_CONFIG=$1/postfix/etc" -e "$1/postfix/etc" \
			/proc/[0-9]*/{environ,cmdline} 2>/dev/null || true; } | cut -d / -f 3 | sort -u)
		[ -n "$pids" ] || return 0
		# shellcheck disable=SC2086 # a list
		kill "$([ $i -lt 50 ] && echo -TERM || echo -KILL)" $pids 2>/dev/null || true
		sleep 0.1
	done
	return 1
}

mail_stop() {
	local dir r=0
	dir=$(realpath -m -- "$1")
	mail_stop_postfix "$dir" || r=1
	mail_stop_dovecot "$dir" || r=1
	rm -f "$dir/env"
	return $r
}
