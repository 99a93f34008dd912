// Made by schema/generate.mjs of schema/schemas.json: not to be changed by hand.

export type paths = Record<string, never>;
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        /** @description What several photographs are answered. */
        Accepted: {
            /** @description One for each photograph, in their order. */
            jobs: components["schemas"]["Job"][];
        };
        /** @description The error rates at one cutoff. */
        AtCutoff: {
            /**
             * Format: float
             * @description The cutoff.
             */
            cutoff: number;
            /** @description People not named. */
            fnir: components["schemas"]["Rate"];
            /** @description Strangers taken for somebody. */
            fpir: components["schemas"]["Rate"];
        };
        /** @description The request queue. */
        Backlog: {
            /**
             * Format: int64
             * @description Requests that a worker has.
             */
            in_flight: number;
            /**
             * Format: int64
             * @description Requests that wait for a worker.
             */
            visible: number;
        };
        /**
         * @description What a cutoff rests on.
         * @enum {string}
         */
        Basis: "set" | "shipped" | "blended" | "own";
        /** @description A person who was considered for a face. */
        Candidate: {
            /** @description Who. */
            person: components["schemas"]["PersonRef"];
            /**
             * Format: float
             * @description Cosine similarity of the nearest enrolled face, -1 to 1.
             */
            similarity: number;
        };
        /** @description A change of the model that is under way. */
        ChangeView: {
            /** @description Faces, those of denials included, that have an embedding by the next model. */
            embedded: number;
            /** @description Faces that are left. */
            left: number;
            /** @description What this replica waits for, if it does. */
            problem?: string | null;
            /**
             * Format: int64
             * @description When it began, in milliseconds since the Unix epoch.
             */
            started_at_ms: number;
            /** @description The next model. */
            to: string;
        };
        /**
         * @description What went wrong, by a name that stays: programs decide by this, never by `detail`.
         * @enum {string}
         */
        Code: "request.invalid" | "request.timeout" | "request.unsupported" | "request.too_large" | "not_found" | "unauthorized" | "forbidden" | "rate_limited" | "method.not_allowed" | "image.unreadable" | "image.unsupported" | "image.too_large" | "image.too_many" | "face.none" | "face.multiple" | "face.unfit" | "person.exists" | "person.full" | "face.last" | "gallery.changed" | "input.replaced" | "input.missing" | "recognition.failed" | "overloaded" | "timeout" | "not_ready" | "stopping" | "jobs.unavailable" | "internal";
        /** @description Processor time outside the models: storage, queues, messages, and this replica's HTTP. */
        CpuView: {
            /**
             * Format: double
             * @description This replica's.
             */
            web?: number | null;
            /**
             * Format: double
             * @description The workers'.
             */
            workers: number;
        };
        /**
         * @description What was decided of one face.
         * @enum {string}
         */
        Decision: "match" | "unknown" | "ambiguous";
        /** @description Who is gone. */
        Deleted: {
            /** @description How many faces went. */
            faces: number;
            /**
             * Format: uuid
             * @description Its id.
             */
            id: string;
            /** @description The person's name. */
            name: string;
        };
        /** @description What a deletion answers. */
        Deletion: {
            deleted?: components["schemas"]["Deleted"] | null;
            /** @description The receipt. */
            receipt: components["schemas"]["Receipt"];
        };
        /** @description What the deletion of a denial answers. */
        DenialDeletion: {
            deleted?: components["schemas"]["DenialView"] | null;
            /** @description The receipt. */
            receipt: components["schemas"]["Receipt"];
        };
        /** @description A denial, as the API shows it. */
        DenialView: {
            /**
             * Format: int64
             * @description When it was denied, in milliseconds since the Unix epoch.
             */
            at_ms: number;
            /**
             * Format: int32
             * @description Which face of that answer.
             */
            face: number;
            /**
             * Format: uuid
             * @description Its id.
             */
            id: string;
            /** @description The request whose answer was denied. */
            request_id: string;
        };
        /** @description The denials of a person. */
        Denials: {
            /** @description The denials. */
            denials: components["schemas"]["DenialView"][];
        };
        /** @description An axis-aligned box in pixels of the EXIF-upright photograph. */
        FaceBox: {
            /**
             * Format: float
             * @description Extent downwards.
             */
            height: number;
            /**
             * Format: float
             * @description Extent to the right.
             */
            width: number;
            /**
             * Format: float
             * @description Left edge.
             */
            x: number;
            /**
             * Format: float
             * @description Top edge.
             */
            y: number;
        };
        /** @description What the deletion of a face answers. */
        FaceDeletion: {
            deleted?: components["schemas"]["FaceView"] | null;
            /** @description The receipt. */
            receipt: components["schemas"]["Receipt"];
        };
        /**
         * @description How fit a face is to be compared, in an answer.
         *
         *     A [`Quality`] is kept in a gallery, where an unknown field is an error; a client of a newer
         *     server passes over one.
         */
        FaceQuality: {
            /**
             * Format: float
             * @description Mean brightness of the face's inner part, 0 to 255.
             */
            brightness: number;
            /**
             * Format: float
             * @description How much of the differences between neighbouring pixels another blurring would take away,
             *     0 to 1.
             */
            sharpness: number;
            /**
             * Format: float
             * @description Side of the square that is cut out for the embedder, in pixels of the photograph.
             */
            size_px: number;
            /**
             * Format: float
             * @description How much of a face the model sees in it, about 1 in a good photograph; left out where that is not
             *     measured.
             */
            strength?: number | null;
            /**
             * Format: float
             * @description How far it is turned to a side, in degrees, about.
             */
            turn_deg: number;
        };
        /** @description One face of a photograph and what was decided of it. */
        FaceReport: {
            /** @description Where the face is. */
            box: components["schemas"]["FaceBox"];
            /** @description The nearest people, best first. */
            candidates: components["schemas"]["Candidate"][];
            /**
             * Format: float
             * @description The detector's score, 0 to 1.
             */
            confidence: number;
            /**
             * Format: float
             * @description The similarity from which on a face is a person's.
             */
            cutoff?: number | null;
            /** @description What was decided. */
            decision: components["schemas"]["Decision"];
            /** @description Right eye, left eye, nose tip, right and left mouth corner (the person's right), in pixels. */
            landmarks: number[][];
            /**
             * Format: float
             * @description How much more similar that one is than the next who comes into question; `null` without a
             *     next.
             */
            margin?: number | null;
            person?: components["schemas"]["PersonRef"] | null;
            quality?: components["schemas"]["FaceQuality"] | null;
            /** @description Why it is not simply the nearest person's, naming the measured and the required value. */
            reasons: string[];
            /**
             * Format: float
             * @description Cosine similarity to the person, or to the best candidate; `null` without one.
             */
            similarity?: number | null;
            /**
             * Format: int32
             * @description How far the photograph has to be turned clockwise for this face to be upright, about: 90, 180 or
             *     270 degrees; left out where it is upright.
             */
            turned_deg?: number;
        };
        /** @description An enrolled face, as the API shows it. */
        FaceView: {
            /**
             * Format: int64
             * @description When it was enrolled, in milliseconds since the Unix epoch.
             */
            enrolled_at_ms: number;
            /** @description The client's name of the photograph. */
            file: string;
            /**
             * Format: uuid
             * @description Its id.
             */
            id: string;
            quality?: components["schemas"]["FaceQuality"] | null;
            /** @description The limits of enrolment that it does not meet; empty where it is fit. */
            unfit: components["schemas"]["UnmetRequirement"][];
        };
        /** @description The faces of a person. */
        Faces: {
            /** @description The faces. */
            faces: components["schemas"]["FaceView"][];
        };
        /** @description The form that enrols more faces of a person. */
        FacesForm: {
            /**
             * @description Whether faces are enrolled that do not meet the limits of enrolment (`quality` of `/v1/status`).
             * @default false
             */
            accept_unfit: boolean;
            /**
             * Format: int32
             * @description Which face of that answer, counted from 0.
             */
            face?: number;
            /** @description Photographs that each show this one person. */
            image?: string[];
            /** @description In place of photographs: the `request_id` of an earlier answer. */
            request_id?: string;
        };
        /**
         * @description Stable codes of what can be wrong with a request, as the HTTP contract has them.
         * @enum {string}
         */
        FailureCode: "image.unreadable" | "image.unsupported" | "image.too_large" | "face.none" | "face.multiple" | "face.unfit" | "input.replaced" | "input.missing" | "recognition.failed";
        /**
         * @description A client's file name, made safe to echo on one line and to use as one component of a key.
         *
         *     Folders are cut off (`../../etc/passwd` is `passwd`), unprintable characters become `_`, and an
         *     over-long name is shortened before its extension. The result is never empty, `.` or `..`.
         */
        FileName: string;
        /** @description What the controller last published, as `/v1/status` has it. */
        FleetNow: {
            /**
             * Format: int32
             * @description Workers that finish what they have.
             */
            draining: number;
            /** @description The workers. */
            instances: components["schemas"]["InstanceNow"][];
            /**
             * Format: int32
             * @description Workers never exceeded.
             */
            max: number;
            /**
             * Format: int32
             * @description Workers kept without work.
             */
            min: number;
            /**
             * Format: int64
             * @description When the controller last published, in milliseconds since the Unix epoch.
             */
            observed_at_ms: number;
            /**
             * Format: int32
             * @description Workers that start.
             */
            pending: number;
            /** @description Why the fleet is as it is. */
            reason: string;
            /**
             * Format: int32
             * @description Workers that take work.
             */
            running: number;
        };
        /** @description What the controller last saw and decided; all zero where none ever ran. */
        FleetView: {
            /**
             * Format: double
             * @description What the workers that are there cost an hour, where their price is set.
             */
            dollars_per_hour?: number | null;
            /**
             * Format: double
             * @description What workers have cost since midnight (UTC), with what is billed for each at least.
             */
            dollars_today?: number | null;
            /**
             * Format: int32
             * @description Workers that finish what they have.
             */
            draining: number;
            /** @description The workers. */
            instances: components["schemas"]["InstanceView"][];
            /**
             * Format: int32
             * @description Workers never exceeded.
             */
            max: number;
            /**
             * Format: double
             * @description What the workers of a day may cost, where that is limited.
             */
            max_dollars_per_day?: number | null;
            /**
             * Format: double
             * @description What the workers that are there may cost an hour, where that is limited.
             */
            max_dollars_per_hour?: number | null;
            /**
             * Format: int32
             * @description Workers kept without work.
             */
            min: number;
            /**
             * Format: int64
             * @description Milliseconds since the Unix epoch.
             */
            observed_at_ms: number;
            /**
             * Format: int32
             * @description Workers that start.
             */
            pending: number;
            /** @description Why the fleet is as it is. */
            reason: string;
            /**
             * Format: int32
             * @description Workers that take work.
             */
            running: number;
        };
        /** @description What forgetting a model answers. */
        Forgotten: {
            /** @description The model. */
            model: string;
            /** @description People of whose faces its embeddings are gone. */
            people: number;
        };
        /** @description The gallery. */
        GalleryView: {
            /** @description Faces enrolled. */
            faces: number;
            /** @description People enrolled. */
            people: number;
            /**
             * Format: int64
             * @description Changes that led to it.
             */
            version: number;
        };
        /** @description What was found; each list has the most serious first. */
        Health: {
            /** @description Other people who are most alike. */
            confusable: components["schemas"]["Pair"][];
            /**
             * Format: float
             * @description The similarity from which on two faces are taken for one person's.
             */
            cutoff: number;
            /** @description People who are likely enrolled under two names. */
            duplicates: components["schemas"]["Pair"][];
            /** @description How many faces were examined. */
            examined: number;
            /** @description Their faces. */
            faces: number;
            /** @description Faces that are likely under the wrong name. */
            mislabelled: components["schemas"]["Mislabelled"][];
            /**
             * Format: uuid
             * @description After whom to go on, where not everybody was examined.
             */
            next?: string | null;
            /** @description People enrolled. */
            people: number;
            /** @description The limits of enrolment that hold. */
            required: components["schemas"]["Requirements"];
            /**
             * Format: int64
             * @description The gallery's version.
             */
            version: number;
            /** @description Faces of little use. */
            weak: components["schemas"]["Weak"][];
        };
        /** @description What can be drawn of earlier samples: a column each. */
        History: {
            /** @description Those that were answered. */
            answered: number[];
            /** @description When, in milliseconds since the Unix epoch. */
            at_ms: number[];
            /** @description Workers that finish what they have. */
            draining: number[];
            /** @description Requests that a worker has. */
            in_flight: number[];
            /** @description The median. */
            p50: (number | null)[];
            /** @description The 99th percentile. */
            p99: (number | null)[];
            /** @description Workers that start. */
            pending: number[];
            /** @description What the planner said, and when, each different from the one before. */
            reasons: components["schemas"]["Reason"][];
            /** @description Workers that take work. */
            running: number[];
            /** @description Requests that wait for a worker. */
            visible: number[];
        };
        /** @description The photograph as it was read: its size in pixels, EXIF-upright, and what its file needed. */
        ImageSize: {
            /**
             * Format: int32
             * @description Which picture of an animation the faces are in, counted from 0; left out where it is the first.
             */
            frame?: number;
            /**
             * Format: int32
             * @description Pixels down.
             */
            height: number;
            /** @description What was wrong with the file and was put right; left out where nothing was. */
            repaired?: components["schemas"]["Repair"][];
            /**
             * Format: int32
             * @description How far it had to be turned clockwise to stand upright, by the faces in it: 90, 180 or 270 degrees;
             *     left out where it did. Boxes and landmarks are those of the photograph before that.
             */
            turned_deg?: number;
            /**
             * Format: int32
             * @description Pixels across.
             */
            width: number;
        };
        /** @description A worker, and what it has answered. */
        InstanceNow: components["schemas"]["InstanceView"] & {
            /**
             * Format: int64
             * @description Photographs that it has answered to this replica.
             */
            answered: number;
        };
        /**
         * @description Where a worker is in its life.
         * @enum {string}
         */
        InstanceState: "pending" | "running" | "draining";
        /**
         * @description Where a worker came from.
         * @enum {string}
         */
        InstanceTier: "local" | "stopped" | "ec2";
        /** @description A worker. */
        InstanceView: {
            /**
             * Format: double
             * @description Seconds since its launch.
             */
            age_s: number;
            /** @description Whether it works on a request, where that is known. */
            busy?: boolean | null;
            /** @description Its name. */
            id: string;
            /** @description Its state. */
            state: components["schemas"]["InstanceState"];
            /** @description Where it came from. */
            tier: components["schemas"]["InstanceTier"];
        };
        /** @description A job, as the API shows it. */
        Job: {
            /**
             * Format: int64
             * @description When the photograph and the result are deleted, at the earliest: a job is kept until it has an
             *     answer, and then for as long as results are kept. `null` where a bucket's own rules say so.
             */
            expires_at_ms?: number | null;
            file?: components["schemas"]["FileName"] | null;
            /** @description The job's id. */
            id: components["schemas"]["RequestId"];
            problem?: components["schemas"]["Problem"] | null;
            result?: components["schemas"]["Recognition"] | null;
            /** @description How far it is. */
            state: components["schemas"]["JobState"];
            /**
             * Format: int64
             * @description When it was submitted, in milliseconds since the Unix epoch.
             */
            submitted_at_ms: number;
        };
        /** @description What the deletion of a job answers. */
        JobDeletion: {
            /** @description The job's id. */
            id: components["schemas"]["RequestId"];
            /** @description Photographs deleted. */
            photographs: number;
            /** @description Results deleted. */
            results: number;
        };
        /**
         * @description How a job fares.
         * @enum {string}
         */
        JobState: "pending" | "done" | "failed";
        /** @description One page of the jobs. */
        Jobs: {
            /** @description The oldest first, without their results. */
            jobs: components["schemas"]["Job"][];
            next?: components["schemas"]["RequestId"] | null;
        };
        /** @description Of this replica's answers of late; `null` where there are none. */
        Latency: {
            /**
             * Format: double
             * @description The median.
             */
            p50: number | null;
            /**
             * Format: double
             * @description The 99th percentile.
             */
            p99: number | null;
        };
        /** @description Of the last 1000 answers; `null` before the first. */
        LatencyView: {
            /**
             * Format: double
             * @description The median.
             */
            p50?: number | null;
            /**
             * Format: double
             * @description The 99th percentile.
             */
            p99?: number | null;
        };
        /**
         * @description What is measured of a face, by its name among the limits.
         * @enum {string}
         */
        Measure: "size_px" | "sharpness" | "brightness" | "turn_deg" | "strength";
        /** @description Who is to become part of whom. */
        Merge: {
            /**
             * Format: uuid
             * @description The person whose faces are taken over, and who is gone then.
             */
            from: string;
        };
        /** @description A face that looks like somebody else's. */
        Mislabelled: {
            /**
             * Format: uuid
             * @description The face.
             */
            face: string;
            /** @description Its photograph's file name. */
            file: string;
            /** @description Whose it seems to be. */
            looks_like: components["schemas"]["Named"];
            /** @description Whose it is said to be. */
            person: components["schemas"]["Named"];
            /**
             * Format: float
             * @description `to_other` minus `to_own`.
             */
            score: number;
            /**
             * Format: float
             * @description Mean similarity to the faces of the other.
             */
            to_other: number;
            /**
             * Format: float
             * @description Mean similarity to the other faces of the person.
             */
            to_own: number;
        };
        /** @description The model that the gallery is matched by. */
        ModelView: {
            change?: components["schemas"]["ChangeView"] | null;
            /** @description The models that have an embedding of new faces: going back to one of them takes no time. */
            kept: string[];
            /** @description Its name. */
            model: string;
            /** @description Faces that the last change found nothing in: they are not matched by the model that it was to. */
            not_embedded: components["schemas"]["NotEmbedded"][];
        };
        /** @description A person, to be shown. */
        Named: {
            /**
             * Format: uuid
             * @description Who.
             */
            id: string;
            /** @description The name. */
            name: string;
        };
        /** @description The model to change to. */
        NextModel: {
            /** @description An embedder's name, or a profile's. */
            model: string;
        };
        /** @description A face that the next model made no embedding of. */
        NotEmbedded: {
            /**
             * Format: uuid
             * @description The face's id, or the denial's.
             */
            id: string;
            /**
             * Format: uuid
             * @description Whose face it is.
             */
            person_id: string;
            /** @description Why there is none. */
            reason: string;
        };
        /** @description Two people and how alike they are. */
        Pair: {
            /** @description The one who was enrolled first. */
            first: components["schemas"]["Named"];
            /**
             * Format: float
             * @description Similarity of their two nearest faces.
             */
            nearest: number;
            /**
             * Format: float
             * @description Mean similarity of the faces of the one to those of the other; what duplicates are judged
             *     by.
             */
            score: number;
            /** @description The other. */
            second: components["schemas"]["Named"];
        };
        /** @description The form with the two photographs. */
        PairForm: {
            /** @description The two photographs: JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC, AVIF or JPEG XL. */
            image: string[];
        };
        /** @description What of a person is to change: a JSON merge patch (RFC 7396). */
        Patch: {
            /** @description The new external id; `null` takes it away. */
            external_id?: string | null;
            /** @description Entries to set, or with `null` to take away; `null` takes all away. */
            metadata?: {
                [key: string]: string | null;
            } | null;
            /** @description The new name. */
            name?: string | null;
        };
        /** @description One page of the enrolled people. */
        People: {
            /**
             * Format: uuid
             * @description What to give as `after` for the next page; `null` on the last.
             */
            next?: string | null;
            /** @description The people. */
            people: components["schemas"]["PersonView"][];
            /** @description How many people are enrolled, listed or not. */
            total: number;
            /**
             * Format: int64
             * @description The gallery's version.
             */
            version: number;
        };
        /** @description The form that enrols a person. */
        PersonForm: {
            /**
             * @description Whether faces are enrolled that do not meet the limits of enrolment (`quality` of `/v1/status`).
             * @default false
             */
            accept_unfit: boolean;
            /** @description The operator's own key of the person, of no more than 200 characters; unique in the gallery. */
            external_id?: string;
            /**
             * Format: int32
             * @description Which face of that answer, counted from 0.
             */
            face?: number;
            /** @description Photographs that each show this one person. */
            image?: string[];
            /**
             * @description A JSON object of texts: up to 50 entries, keys of 1 to 100 and values of up to 1000
             *     characters.
             */
            metadata?: string;
            /**
             * @description The name, of no more than 200 characters on one line; unique in the gallery, where names are
             *     compared without regard to case and to how blanks and accents are encoded.
             */
            name: string;
            /** @description In place of photographs: the `request_id` of an earlier answer. */
            request_id?: string;
        };
        /** @description An enrolled person, by id and name. */
        PersonRef: {
            /** @description The person's id, a UUID. */
            id: string;
            /** @description The name given at enrolment. */
            name: string;
        };
        /** @description An enrolled person, as the API shows them. */
        PersonView: {
            /**
             * Format: int64
             * @description When it was last changed, in milliseconds since the Unix epoch.
             */
            changed_at_ms: number;
            /** @description How many faces were said not to be this person. */
            denials: number;
            /**
             * Format: int64
             * @description When it was enrolled, in milliseconds since the Unix epoch.
             */
            enrolled_at_ms: number;
            /** @description The operator's own key of the person. */
            external_id?: string | null;
            /** @description The faces. */
            faces: components["schemas"]["FaceView"][];
            /**
             * Format: uuid
             * @description Its id.
             */
            id: string;
            /** @description The operator's own notes of the person. */
            metadata: {
                [key: string]: string;
            };
            /** @description The person's name. */
            name: string;
        };
        /** @description What came of one of several photographs. */
        PhotoResult: (components["schemas"]["Recognition"] & {
            /** @description The client's name of the photograph. */
            file: components["schemas"]["FileName"];
        }) | {
            /** @description The client's name of the photograph. */
            file: components["schemas"]["FileName"];
            /** @description What the photograph alone would have been answered. */
            problem: components["schemas"]["Problem"];
        };
        /** @description A form with photographs. */
        PhotosForm: {
            /** @description Photographs, at least one: JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC, AVIF or JPEG XL. */
            image: string[];
        };
        /** @description A form with one photograph. */
        PlainForm: {
            /** @description A photograph: JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC, AVIF or JPEG XL. */
            inputFile: string;
        };
        /** @description An RFC 9457 problem. Some codes have members of their own besides these. */
        Problem: components["schemas"]["ProblemMembers"] & {
            /** @description The stable code. */
            code: components["schemas"]["Code"];
            /** @description One sentence that names the thing and the remedy. */
            detail: string;
            /**
             * Format: int32
             * @description The HTTP status.
             */
            status: number;
            /** @description The status in words. */
            title: string;
            /** @description Always `about:blank`: `code` tells the problems apart. */
            type: string;
        };
        /** @description Members that a problem may have. */
        ProblemMembers: {
            /** @description The path of the job whose result comes later. */
            job?: string | null;
            /** @description The person who has the name already. */
            person_id?: string | null;
            /** @description Which of two photographs is at fault: `first` or `second`. */
            photograph?: string | null;
            /** @description Photographs of the request that are at fault. */
            refused?: components["schemas"]["Refused"][] | null;
            /** @description The recognition's id where there is one, and the exchange's `X-Request-Id` elsewhere. */
            request_id?: string | null;
        };
        /** @description The limits of quality. */
        QualityLimits: {
            /** @description For a face to be enrolled: it stands for the person in every comparison to come. */
            enrolment: components["schemas"]["Requirements"];
            /** @description For a face to be named. */
            matching: components["schemas"]["Requirements"];
        };
        /** @description How many requests there are. */
        QueueStatus: {
            /**
             * Format: int64
             * @description That were set aside.
             */
            dead_letter: number;
            /**
             * Format: int64
             * @description That a worker has.
             */
            in_flight: number;
            /**
             * Format: int64
             * @description That wait for a worker.
             */
            visible: number;
        };
        /** @description How often something happened, with its 95 % interval. */
        Rate: {
            /**
             * Format: double
             * @description The share; `None` where nothing was counted.
             */
            estimate?: number | null;
            /** @description How often it happened. */
            happened: number;
            /**
             * Format: double
             * @description The interval's upper end; 1 where nothing was counted.
             */
            high: number;
            /**
             * Format: double
             * @description The interval's lower end; 0 where nothing was counted.
             */
            low: number;
            /** @description Out of how many. */
            of: number;
        };
        /** @description What the planner said, and when. */
        Reason: {
            /**
             * Format: int64
             * @description When, in milliseconds since the Unix epoch.
             */
            at_ms: number;
            /** @description Why the fleet is as it is. */
            reason: string;
        };
        /** @description The receipt of a deletion. */
        Receipt: {
            /**
             * Format: int64
             * @description When it was deleted, in milliseconds since the Unix epoch.
             */
            deleted_at_ms: number;
            /**
             * @description Embeddings deleted from the gallery: its changes, its segments and their copies on this
             *     machine.
             */
            embeddings: number;
            /**
             * Format: int64
             * @description The first version of the gallery without what was deleted; what later requests are matched
             *     against has it or a newer one.
             */
            gallery_version: number;
            /**
             * Format: uuid
             * @description Its id.
             */
            id: string;
            /**
             * Format: int64
             * @description Within this time other machines with a running web tier or worker delete their copies of the
             *     segments that had them.
             */
            other_machines_within_s: number;
            /**
             * Format: uuid
             * @description The person's id.
             */
            person_id: string;
            /** @description Kept photographs deleted. */
            photographs: number;
            /** @description Kept photographs that the store did not delete when asked; the sweep deletes them. */
            photographs_pending: number;
            /**
             * @description Stored results that the person was taken out of. `null` where no person was deleted, or where
             *     results are in a bucket or known by file name: those may name the person until they are
             *     deleted for their age.
             */
            results?: number | null;
            /**
             * Format: int64
             * @description Photographs that were sent for recognition are deleted when they are this old, whoever they
             *     show; `null` where they are in a bucket, whose own expiry rule says when.
             */
            uploads_kept_s?: number | null;
        };
        /** @description The result of recognising one photograph. */
        Recognition: {
            /** @description Every face found, largest first. */
            faces: components["schemas"]["FaceReport"][];
            /** @description The photograph's size. */
            image: components["schemas"]["ImageSize"];
            /** @description The embedder's name. */
            model: string;
            /** @description The request that this answers. */
            request_id: components["schemas"]["RequestId"];
            /** @description Where the time went. */
            timing_ms: components["schemas"]["TimingMs"];
        };
        /** @description What the recognition of a form's photographs is answered. */
        RecognitionAnswer: components["schemas"]["Recognition"] | components["schemas"]["Recognitions"];
        /** @description The answer to several photographs. */
        Recognitions: {
            /**
             * @description The id of the exchange, as in the logs and in `X-Request-Id`; each photograph has one of its
             *     own in its result.
             */
            request_id: string;
            /** @description One for each photograph, in their order. */
            results: components["schemas"]["PhotoResult"][];
        };
        /** @description A photograph that was refused. */
        Refused: {
            /** @description The stable code. */
            code: components["schemas"]["FailureCode"];
            /** @description One sentence that names the thing and the remedy. */
            detail: string;
            /** @description Its file name. */
            file: string;
        };
        /**
         * @description A fault of a photograph's file that takes nothing from its pixels.
         * @enum {string}
         */
        Repair: "end" | "start" | "huffman_tables";
        /** @description What is known of the error rates in a gallery. */
        Report: {
            /** @description What the cutoff rests on. */
            basis: components["schemas"]["Basis"];
            /**
             * Format: float
             * @description The similarity from which on a face is a person's.
             */
            cutoff: number;
            /** @description Their faces. */
            faces: number;
            /** @description The share of faces whose person would not be named; those that would be ambiguous count. */
            fnir: components["schemas"]["Rate"];
            /** @description The share of people who, if they were not enrolled, would be taken for somebody. */
            fpir: components["schemas"]["Rate"];
            /** @description Faces that were looked for among the other faces of the same person. */
            genuine_probes: number;
            /** @description Comparisons of a face with another person that the cutoff rests on. */
            impostor_pairs: number;
            /** @description The model whose embeddings are compared; `None` while nobody is enrolled. */
            model?: string | null;
            /** @description What is not known and why, one sentence each. */
            notes: string[];
            /** @description People enrolled. */
            people: number;
            /** @description The share of faces whose nearest person is their own. */
            rank1: components["schemas"]["Rate"];
            /** @description Both rates at other cutoffs. */
            table: components["schemas"]["AtCutoff"][];
            /**
             * Format: double
             * @description The rate of strangers taken for somebody that is aimed at.
             */
            target_fpir: number;
            /**
             * Format: int64
             * @description The gallery's version.
             */
            version: number;
        };
        /**
         * Format: uuid
         * @description One request's identity: a UUIDv7, so that ids sort by the time of submission.
         */
        RequestId: string;
        /** @description This replica's own count, since it started. */
        Requests: {
            /**
             * Format: int64
             * @description Those that were taken.
             */
            accepted: number;
            /**
             * Format: int64
             * @description Those that were answered.
             */
            answered: number;
            /**
             * Format: int64
             * @description Those that timed out, that Muster failed on, or whose client hung up.
             */
            failed: number;
            /** @description Those that wait for their answer. */
            waiting: number;
        };
        /** @description Photographs, since this process started. */
        RequestsView: {
            /**
             * Format: int64
             * @description Those that were taken.
             */
            accepted: number;
            /**
             * Format: int64
             * @description Those that were answered.
             */
            answered: number;
            /**
             * Format: int64
             * @description That timed out, that Muster failed on, or whose client hung up.
             */
            failed: number;
            /** @description That wait for their answer. */
            waiting: number;
        };
        /** @description What a face needs. Each limit can be switched off: a least by 0, the turn by 90. */
        Requirements: {
            /**
             * Format: float
             * @description The least mean brightness of the face's inner part, 0 to 255.
             */
            brightness: number;
            /**
             * Format: float
             * @description The least sharpness, 0 to 1.
             */
            sharpness: number;
            /**
             * Format: float
             * @description The least side of the square that is cut out for the embedder, in pixels of the photograph.
             */
            size_px: number;
            /**
             * Format: float
             * @description The least strength, where it is measured.
             */
            strength: number;
            /**
             * Format: float
             * @description The most that it is turned to a side, in degrees.
             */
            turn_deg: number;
        };
        /** @description What viewers are told with each sample. */
        Sample: {
            /**
             * Format: int64
             * @description When, in milliseconds since the Unix epoch.
             */
            at_ms: number;
            /** @description The fleet. */
            fleet: components["schemas"]["FleetNow"];
            /** @description Latencies, in milliseconds. */
            latency_ms: components["schemas"]["Latency"];
            /** @description The queue. */
            queue: components["schemas"]["Backlog"];
            /** @description Photographs, since this replica started. */
            requests: components["schemas"]["Requests"];
        };
        /** @description A sample photograph, as the page gets to know it. */
        SamplePhotograph: {
            /** @description Its name, below `/samples/`. */
            file: string;
            /** @description Whom it shows; `None` where that is a group. */
            person?: string | null;
        };
        /** @description The sample photographs. */
        SamplePhotographs: {
            /** @description The photographs. */
            samples: components["schemas"]["SamplePhotograph"][];
        };
        /** @description How the service fares. */
        StatusView: {
            /** @description Processor time, in seconds. */
            cpu_s: components["schemas"]["CpuView"];
            /** @description Of stores and queues, since this process started, by what they mean. */
            failures: {
                [key: string]: number;
            };
            /** @description The fleet. */
            fleet: components["schemas"]["FleetView"];
            /** @description The gallery. */
            gallery: components["schemas"]["GalleryView"];
            /** @description Latencies, in milliseconds. */
            latency_ms: components["schemas"]["LatencyView"];
            /** @description The embedder's name. */
            model: string;
            /**
             * @description The limits of a face's quality, by this replica's settings. It judges enrolments; workers judge who is
             *     named, by their own settings.
             */
            quality: components["schemas"]["QualityLimits"];
            /** @description The queue. */
            queue: components["schemas"]["QueueStatus"];
            /** @description Photographs, since this replica started. */
            requests: components["schemas"]["RequestsView"];
            /**
             * Format: double
             * @description For how long this replica has been up.
             */
            uptime_s: number;
            /** @description Muster's version. */
            version: string;
        };
        /** @description What the submission of jobs is answered. */
        Submitted: components["schemas"]["Job"] | components["schemas"]["Accepted"];
        /** @description Milliseconds that a request spent in each stage. */
        TimingMs: {
            /**
             * Format: double
             * @description Warping the faces to the embedder's template.
             */
            align: number;
            /**
             * Format: double
             * @description The photograph's bytes to upright RGB.
             */
            decode: number;
            /**
             * Format: double
             * @description Finding the faces.
             */
            detect: number;
            /**
             * Format: double
             * @description Computing the embeddings.
             */
            embed: number;
            /**
             * Format: double
             * @description Reading the photograph from the object store.
             */
            fetch: number;
            /**
             * Format: double
             * @description Bringing the gallery up to date and searching it.
             */
            match: number;
            /**
             * Format: double
             * @description From the web tier's send to the worker's receive, by the two machines' clocks.
             */
            queue: number;
            /**
             * Format: double
             * @description Writing the result. Zero inside the stored result itself.
             */
            store: number;
            /**
             * Format: double
             * @description From the upload's last byte to the answer, as the web tier saw it; in the stored result,
             *     from the send to the store.
             */
            total: number;
        };
        /** @description What viewers are told where there is no sample. */
        Trouble: {
            /**
             * Format: int64
             * @description When, in milliseconds since the Unix epoch.
             */
            at_ms: number;
            /** @description One sentence. */
            detail: string;
        };
        /** @description A requirement that a face does not meet. */
        UnmetRequirement: {
            /** @description Of what. */
            measure: components["schemas"]["Measure"];
            /**
             * Format: float
             * @description As it is.
             */
            measured: number;
            /**
             * Format: float
             * @description As it should be at least, or of the turn at most.
             */
            required: number;
        };
        /** @description Whether two photographs show the same person. */
        Verification: {
            /**
             * Format: float
             * @description The similarity from which on two faces are one person's.
             */
            cutoff: number;
            /** @description The face of the first photograph, and that of the second. */
            faces: components["schemas"]["VerifiedFace"][];
            /** @description The embedder's name. */
            model: string;
            /** @description The id of the exchange, as in the logs and in `X-Request-Id`. */
            request_id: string;
            /** @description Whether the similarity reaches the cutoff. */
            same: boolean;
            /**
             * Format: float
             * @description Cosine similarity of the two faces, -1 to 1.
             */
            similarity: number;
        };
        /** @description The face of one of the photographs. */
        VerifiedFace: {
            /** @description Where the face is. */
            box: components["schemas"]["FaceBox"];
            /**
             * Format: float
             * @description The detector's score, 0 to 1.
             */
            confidence: number;
            /**
             * Format: int32
             * @description How many faces the photograph shows; the largest was compared.
             */
            faces_found: number;
            /** @description The client's name of the photograph. */
            file: components["schemas"]["FileName"];
        };
        /** @description A face that is of little use. */
        Weak: {
            /**
             * Format: float
             * @description Median similarity to the person's other faces; `None` without others.
             */
            agreement?: number | null;
            /**
             * Format: uuid
             * @description The face.
             */
            face: string;
            /** @description Its photograph's file name. */
            file: string;
            /** @description Whose it is. */
            person: components["schemas"]["Named"];
            /** @description What is wrong with it, naming the measured and the required. */
            reasons: string[];
            /** @description The limits of enrolment that it does not meet: it was enrolled all the same, or before they held. */
            unfit: components["schemas"]["UnmetRequirement"][];
        };
        /** @description Which answer is wrong. */
        WrongAnswer: {
            /**
             * Format: int32
             * @description Which of its faces, counted from 0.
             */
            face?: number;
            /** @description The answer's `request_id`. */
            request_id: string;
        };
    };
    responses: never;
    parameters: never;
    requestBodies: never;
    headers: never;
    pathItems: never;
}
export type $defs = Record<string, never>;
export type operations = Record<string, never>;
